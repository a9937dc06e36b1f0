//! The store of a fleet: an etcd cluster.
//!
//! The client reconnects by itself, and turns to another member where one doesn't answer. What it can't know is whether a transaction whose answer was
//! lost was applied: such errors become [`StoreError::Unknown`] unless the server, or the network
//! before it, has certainly refused.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare as EtcdCompare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, KvClient,
    PutOptions, ResponseHeader, Txn as EtcdTxn, TxnOp, WatchOptions, WatchStream,
};

use super::connection::Connection;
use super::txn::{Compare, Op, check_key};
use super::watch::Hinter;
use super::{
    Entry, EtcdUrl, LeaseId, Outcome, Revision, Snapshot, Store, StoreError, Txn, Watch, prefix_end,
};

/// How long a request may take before its answer counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Entries in one page of a range read; halved where pages get too large to decode.
const PAGE: i64 = 1000;
/// The largest answer that is decoded: sixty values at their limit.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How often a range read starts again when compaction overtakes it.
const RANGE_ATTEMPTS: usize = 5;
/// Waits before a request that certainly had no effect is sent again, to another member maybe.
const BACKOFF: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];
/// The wait before a lost watch is set up again.
const REWATCH: Duration = Duration::from_millis(200);

/// State in an etcd cluster, under one namespace.
pub struct EtcdStore {
    members: Arc<Connection>,
    namespace: String,
    place: String,
}

impl EtcdStore {
    /// Connects to a cluster. Without a user this sends nothing yet, so it works while etcd is down.
    ///
    /// # Errors
    /// [`StoreError::Storage`] where a certificate can't be read, [`StoreError::Denied`] where the
    /// user or password is wrong.
    pub async fn connect(url: &EtcdUrl) -> Result<Self, StoreError> {
        let members = Connection::open(url).await?;
        let place = members.place();
        Ok(Self { members: Arc::new(members), namespace: url.namespace.clone(), place })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.namespace)
    }

    /// Sends a request that may be sent twice, waits for its answer, and sends it again, to another
    /// member, where one didn't answer.
    async fn ask<T, F>(&self, send: impl Fn(Client) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let mut waits = BACKOFF.into_iter();
        let mut silent = 0;
        loop {
            let (member, client) =
                self.members.client().await.map_err(|error| translate(&self.place, &error))?;
            let error = match tokio::time::timeout(REQUEST_TIMEOUT, send(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => translate(&self.place, &error),
                Err(_) => {
                    self.members.leave(member);
                    silent += 1;
                    if silent < self.members.count() {
                        continue;
                    }
                    return Err(StoreError::Unavailable(format!("no answer from {}", self.place)));
                }
            };
            if error.retryable() {
                self.members.leave(member);
            }
            match waits.next() {
                Some(wait) if error.retryable() => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
        }
    }

    /// All entries under a prefix at one revision; nothing where compaction overtook it.
    async fn try_range(&self, prefix: &str) -> Result<Option<Snapshot>, StoreError> {
        let prefix = self.key(prefix);
        let end = prefix_end(prefix.as_bytes()).unwrap_or_else(|| vec![0]);
        let mut from = prefix.into_bytes();
        let (mut entries, mut revision, mut page) = (Vec::new(), 0, PAGE);
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(page).with_revision(revision);
            let answer = self.ask(|client| {
                let (mut kv, from, options) = (kv(&client), from.clone(), options.clone());
                async move { kv.get(from, Some(options)).await }
            });
            let mut answer = match answer.await {
                Ok(answer) => answer,
                Err(StoreError::TooLarge { what: ANSWER, .. }) if page > 1 => {
                    page /= 2;
                    continue;
                }
                Err(StoreError::Invalid(why)) if why == COMPACTED => return Ok(None),
                Err(error) => return Err(error),
            };
            if revision == 0 {
                revision = answer.header().map_or(0, ResponseHeader::revision);
            }
            let more = answer.more();
            let found = answer.take_kvs();
            if let Some(last) = found.last().filter(|_| more) {
                from = [last.key(), &[0]].concat();
            }
            for kv in found {
                entries.push(self.entry(kv)?);
            }
            if !more {
                return Ok(Some(Snapshot { entries, revision: Revision(revision) }));
            }
        }
    }

    fn entry(&self, kv: KeyValue) -> Result<Entry, StoreError> {
        let (create_revision, mod_revision) = (Revision(kv.create_revision()), Revision(kv.mod_revision()));
        let version = kv.version();
        let (key, value) = kv.into_key_value();
        let key = std::str::from_utf8(&key)
            .ok()
            .and_then(|key| key.strip_prefix(self.namespace.as_str()))
            .ok_or_else(|| StoreError::corrupt(&String::from_utf8_lossy(&key), "the key is not UTF-8"))?;
        Ok(Entry { key: key.to_owned(), value, create_revision, mod_revision, version })
    }

    fn compare(&self, compare: Compare) -> EtcdCompare {
        match compare {
            Compare::Absent(key) => EtcdCompare::version(self.key(&key), CompareOp::Equal, 0),
            Compare::Exists(key) => EtcdCompare::version(self.key(&key), CompareOp::Greater, 0),
            Compare::ModRevision(key, at) => {
                EtcdCompare::mod_revision(self.key(&key), CompareOp::Equal, at.0)
            }
            Compare::CreateRevision(key, at) => {
                EtcdCompare::create_revision(self.key(&key), CompareOp::Equal, at.0)
            }
            Compare::Value(key, value) => EtcdCompare::value(self.key(&key), CompareOp::Equal, value),
            Compare::NoneUnder(prefix) => {
                EtcdCompare::version(self.key(&prefix), CompareOp::Equal, 0).with_prefix()
            }
        }
    }

    fn op(&self, op: Op) -> TxnOp {
        match op {
            Op::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(self.key(&key), value, options)
            }
            Op::Delete(key) => TxnOp::delete(self.key(&key), None),
            Op::DeletePrefix(prefix) => {
                TxnOp::delete(self.key(&prefix), Some(DeleteOptions::new().with_prefix()))
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = self.key(key);
        let mut answer = self
            .ask(|client| {
                let (mut kv, key) = (kv(&client), key.clone());
                async move { kv.get(key, None).await }
            })
            .await?;
        answer.take_kvs().pop().map(|kv| self.entry(kv)).transpose()
    }

    async fn range(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        for _ in 0..RANGE_ATTEMPTS {
            if let Some(snapshot) = self.try_range(prefix).await? {
                return Ok(snapshot);
            }
        }
        Err(StoreError::Unavailable("compaction keeps overtaking a range read".to_owned()))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check()?;
        let lease = txn.ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            _ => None,
        });
        let compares: Vec<EtcdCompare> = txn.compares.into_iter().map(|it| self.compare(it)).collect();
        let ops: Vec<TxnOp> = txn.ops.into_iter().map(|it| self.op(it)).collect();
        let request = EtcdTxn::new().when(compares).and_then(ops);
        let mut waits = BACKOFF.into_iter();
        loop {
            let (member, client) =
                self.members.client().await.map_err(|error| translate(&self.place, &error))?;
            let mut kv = kv(&client);
            let sent = kv.txn(request.clone());
            let error = match tokio::time::timeout(REQUEST_TIMEOUT, sent).await {
                Ok(Ok(answer)) if answer.succeeded() => {
                    let revision = answer.header().map(ResponseHeader::revision);
                    let bare = || StoreError::Unknown("etcd's answer has no revision".to_owned());
                    return revision.map(|it| Outcome::Committed(Revision(it))).ok_or_else(bare);
                }
                Ok(Ok(_)) => return Ok(Outcome::Conflict),
                Ok(Err(error)) => translate_commit(&self.place, &error, lease),
                Err(_) => {
                    self.members.leave(member);
                    return Err(StoreError::Unknown(format!("no answer from {}", self.place)));
                }
            };
            if matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_)) {
                self.members.leave(member);
            }
            match waits.next() {
                Some(wait) if error.retryable() => tokio::time::sleep(wait).await,
                _ => return Err(error),
            }
        }
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError> {
        let prefix = self.key(prefix);
        let mut stream = start_watch(&self.members, &self.place, &prefix).await?;
        let (hinter, watch) = Watch::new();
        let (members, place) = (self.members.clone(), self.place.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = hinter.closed() => return,
                    () = forward(&mut stream, &hinter) => {}
                }
                stream = loop {
                    if let Ok(stream) = start_watch(&members, &place, &prefix).await {
                        break stream;
                    }
                    tokio::select! {
                        () = hinter.closed() => return,
                        () = tokio::time::sleep(REWATCH) => {}
                    }
                };
                // Anything may have happened between the two streams.
                hinter.hint();
            }
        });
        Ok(watch)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let grant = |client: Client| {
            let mut leases = client.lease_client();
            async move { leases.grant(seconds, None).await }
        };
        // A lease that is granted twice, as an answer was lost, expires by itself.
        self.ask(grant).await.map(|granted| LeaseId(granted.id()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let keep = |client: Client| {
            let mut leases = client.lease_client();
            async move {
                match leases.keep_alive(lease.0).await {
                    Ok(_) => Ok(true),
                    Err(Error::LeaseKeepAliveError(why)) if why.contains("not found") => Ok(false),
                    Err(error) => Err(error),
                }
            }
        };
        if self.ask(keep).await? { Ok(()) } else { Err(StoreError::LeaseGone(lease)) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoke = |client: Client| {
            let mut leases = client.lease_client();
            async move {
                match leases.revoke(lease.0).await {
                    Ok(_) => Ok(()),
                    Err(Error::GRpcStatus(status)) if status.message().contains(LEASE_GONE) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        self.ask(revoke).await
    }
}

fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// Sets up a watch and waits until the server has it.
async fn start_watch(members: &Connection, place: &str, prefix: &str) -> Result<WatchStream, StoreError> {
    let options = WatchOptions::new().with_prefix();
    let (member, client) = members.client().await.map_err(|error| translate(place, &error))?;
    let start = async {
        let mut stream = client.watch_client().watch(prefix, Some(options)).await?;
        match stream.message().await? {
            Some(first) if first.created() && !first.canceled() => Ok(stream),
            _ => Err(Error::WatchError("the server refused the watch".to_owned())),
        }
    };
    let error = match tokio::time::timeout(REQUEST_TIMEOUT, start).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => translate(place, &error),
        Err(_) => StoreError::Unavailable(format!("no answer from {place}")),
    };
    members.leave(member);
    Err(error)
}

/// Gives a hint for every message, until the stream ends or is cancelled.
async fn forward(stream: &mut WatchStream, hinter: &Hinter) {
    while let Ok(Some(message)) = stream.message().await {
        hinter.hint();
        if message.canceled() {
            return;
        }
    }
}

const ANSWER: &str = "an answer in bytes";
const COMPACTED: &str = "the revision has been compacted";
const LEASE_GONE: &str = "requested lease not found";

/// What an error means for a request that may be sent twice.
pub(super) fn translate(place: &str, error: &Error) -> StoreError {
    use tonic::Code;
    let Error::GRpcStatus(status) = error else {
        return match error {
            Error::InvalidArgs(why) => StoreError::Invalid(why.clone()),
            Error::InvalidUri(why) => StoreError::Invalid(why.to_string()),
            _ => StoreError::Unavailable(format!("{place}: {error}")),
        };
    };
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("compacted") => StoreError::Invalid(COMPACTED.to_owned()),
        Code::OutOfRange if message.contains("too large") => {
            StoreError::TooLarge { what: ANSWER, size: MAX_ANSWER_BYTES + 1, limit: MAX_ANSWER_BYTES }
        }
        Code::ResourceExhausted if message.contains("space exceeded") => StoreError::Storage {
            place: place.to_owned(),
            problem: "etcd's space quota is exceeded".to_owned(),
            remedy: "compact and defragment it, disarm its NOSPACE alarm, and turn auto-compaction on",
        },
        Code::Unauthenticated | Code::PermissionDenied => StoreError::Denied(message.to_owned()),
        Code::InvalidArgument | Code::FailedPrecondition
            if message.contains("auth") || message.contains("user name") =>
        {
            StoreError::Denied(message.to_owned())
        }
        Code::InvalidArgument => StoreError::Invalid(message.to_owned()),
        _ => StoreError::Unavailable(format!("{place}: {}", with_causes(status))),
    }
}

/// The same for a transaction: unless it was certainly refused, its outcome is unknown.
fn translate_commit(place: &str, error: &Error, lease: Option<LeaseId>) -> StoreError {
    let status = match error {
        Error::GRpcStatus(status) => status,
        _ => return StoreError::Unknown(format!("{place}: {error}")),
    };
    if let (true, Some(lease)) = (status.message().contains(LEASE_GONE), lease) {
        return StoreError::LeaseGone(lease);
    }
    let translated = translate(place, error);
    let refused = ["no leader", "too many requests"].iter().any(|why| status.message().contains(why))
        || never_connected(status);
    match translated {
        StoreError::Unavailable(why) if !refused => StoreError::Unknown(why),
        _ => translated,
    }
}

/// Whether a request failed before there was a connection to send it on.
fn never_connected(status: &tonic::Status) -> bool {
    causes(status).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

fn causes(status: &tonic::Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

fn with_causes(status: &tonic::Status) -> String {
    causes(status)
        .last()
        .map_or_else(|| status.message().to_owned(), |cause| format!("{} ({cause})", status.message()))
}
