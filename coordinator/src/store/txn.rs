//! Transactions: compares that must all hold, and operations that then apply as one.

use std::collections::BTreeSet;

use super::{LeaseId, Revision, StoreError};

/// Compares in one transaction, at most (etcd's default).
pub const MAX_COMPARES: usize = 128;
/// Operations in one transaction, at most (etcd's default).
pub const MAX_OPS: usize = 128;
/// Bytes in a key, at most, without the namespace.
pub const MAX_KEY_BYTES: usize = 1024;
/// Bytes in a value, at most.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Bytes in a whole transaction, at most: below etcd's 1.5 MiB for a request, with room for
/// namespaces.
pub const MAX_TXN_BYTES: usize = 1_500_000;
/// What a compare or an operation costs on the wire beside its key and value, at most.
const OVERHEAD_BYTES: usize = 32;

/// A condition on the store's state just before a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Exists(String),
    /// The key was last put at this revision.
    ModRevision(String, Revision),
    /// The key was created at this revision.
    CreateRevision(String, Revision),
    /// The key exists and has this value.
    Value(String, Vec<u8>),
    /// No key starts with this prefix.
    NoneUnder(String),
}

impl Compare {
    /// The key, or the prefix, that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key)
            | Self::Exists(key)
            | Self::ModRevision(key, _)
            | Self::CreateRevision(key, _)
            | Self::Value(key, _)
            | Self::NoneUnder(key) => key,
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts a key; it vanishes with its lease where it has one.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The lease it is attached to; a put without one detaches the key.
        lease: Option<LeaseId>,
    },
    /// Deletes a key, if it exists.
    Delete(String),
    /// Deletes every key that starts with the prefix.
    DeletePrefix(String),
}

/// A transaction: all compares hold and all operations apply, or nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Txn {
    pub(super) compares: Vec<Compare>,
    pub(super) ops: Vec<Op>,
}

impl Txn {
    /// A transaction that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn require(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Puts a key.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// What must hold for it.
    pub fn compares(&self) -> &[Compare] {
        &self.compares
    }

    /// What it changes.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Puts a key that vanishes with its lease.
    pub(crate) fn put_with_lease(
        mut self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
        lease: LeaseId,
    ) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Deletes a key, if it exists.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete(key.into()));
        self
    }

    /// Deletes every key that starts with a prefix; counts as one operation.
    pub(crate) fn delete_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.ops.push(Op::DeletePrefix(prefix.into()));
        self
    }

    /// How many compares and how many operations it has.
    pub fn len(&self) -> (usize, usize) {
        (self.compares.len(), self.ops.len())
    }

    /// Whether it neither compares nor changes anything.
    pub fn is_empty(&self) -> bool {
        self.compares.is_empty() && self.ops.is_empty()
    }

    /// How many bytes it takes of [`MAX_TXN_BYTES`]; a group commit stops before the limit.
    pub fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| {
            let value = if let Compare::Value(_, value) = compare { value.len() } else { 0 };
            compare.key().len() + value
        });
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(key) | Op::DeletePrefix(key) => key.len(),
        });
        compares.chain(ops).map(|bytes| bytes + OVERHEAD_BYTES).sum()
    }

    /// Refuses what some back end could not take, so that all refuse the same.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::Invalid`].
    pub fn check(&self) -> Result<(), StoreError> {
        within("the number of compares in a transaction", self.compares.len(), MAX_COMPARES)?;
        within("the number of operations in a transaction", self.ops.len(), MAX_OPS)?;
        for compare in &self.compares {
            if !matches!(compare, Compare::NoneUnder(_)) {
                check_key(compare.key())?;
            }
            within("a key in bytes", compare.key().len(), MAX_KEY_BYTES)?;
            if let Compare::Value(_, value) = compare {
                within("a value in bytes", value.len(), MAX_VALUE_BYTES)?;
            }
        }
        for op in &self.ops {
            match op {
                Op::Put { key, value, .. } => {
                    check_key(key)?;
                    within("a value in bytes", value.len(), MAX_VALUE_BYTES)?;
                }
                Op::Delete(key) | Op::DeletePrefix(key) => check_key(key)?,
            }
        }
        within("a transaction in bytes", self.bytes(), MAX_TXN_BYTES)?;
        self.check_overlap()
    }

    /// Two operations on one key have no order, so they are refused.
    fn check_overlap(&self) -> Result<(), StoreError> {
        let twice =
            |key: &str| StoreError::Invalid(format!("key `{key}` is written twice in one transaction"));
        let mut keys = BTreeSet::new();
        for op in &self.ops {
            let (Op::Put { key, .. } | Op::Delete(key) | Op::DeletePrefix(key)) = op;
            if !keys.insert(key.as_str()) {
                return Err(twice(key));
            }
        }
        for op in &self.ops {
            let Op::DeletePrefix(prefix) = op else { continue };
            let after = (std::ops::Bound::Excluded(prefix.as_str()), std::ops::Bound::Unbounded);
            if let Some(key) =
                keys.range::<str, _>(after).next().filter(|key| key.starts_with(prefix.as_str()))
            {
                return Err(twice(key));
            }
        }
        Ok(())
    }
}

/// Refuses keys that no back end takes.
///
/// # Errors
/// [`StoreError::Invalid`] and [`StoreError::TooLarge`].
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::Invalid("a key is empty".to_owned()));
    }
    within("a key in bytes", key.len(), MAX_KEY_BYTES)
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_touch_one_key_are_refused() {
        let cases = [
            (Txn::new().put("a", "1").put("a", "2"), false),
            (Txn::new().put("a", "1").delete("a"), false),
            (Txn::new().put("a/b", "1").delete_prefix("a/"), false),
            (Txn::new().delete_prefix("a/").delete_prefix("a/b/"), false),
            (Txn::new().put("a", "1").delete_prefix("a/").put("a0", ""), true),
        ];
        for (txn, good) in cases {
            assert_eq!(txn.check().is_ok(), good, "{txn:?}");
        }
    }

    #[test]
    fn a_transaction_over_the_request_limit_is_refused_though_each_value_fits() {
        let txn = Txn::new().put("a", vec![0; 900_000]).put("b", vec![0; 900_000]);
        assert!(matches!(txn.check(), Err(StoreError::TooLarge { limit: MAX_TXN_BYTES, .. })));
    }
}
