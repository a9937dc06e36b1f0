//! What is computed aside, and its publication.

use coord_common::task::{Aside, Keeps, Publish, PublishTable};

use super::{Malformed, missing, parse, ranges, set};
use crate::wire;

impl From<&Aside> for wire::Aside {
    fn from(aside: &Aside) -> Self {
        Self {
            published: Some(aside.published.clone().into()),
            keeps: Some(match &aside.keeps {
                Keeps::Nothing => wire::aside::Keeps::Nothing(wire::Nothing {}),
                Keeps::Copy => wire::aside::Keeps::Copy(wire::Copy {}),
                Keeps::Outside { ranges: outside, merged } => wire::aside::Keeps::Outside(wire::Outside {
                    ranges: ranges(outside),
                    merged: Some(merged.clone().into()),
                }),
            }),
        }
    }
}

impl TryFrom<wire::Aside> for Aside {
    type Error = Malformed;
    fn try_from(aside: wire::Aside) -> Result<Self, Malformed> {
        Ok(Self {
            published: aside.published.ok_or_else(|| missing("aside.published"))?.into(),
            keeps: match aside.keeps.ok_or_else(|| missing("aside.keeps"))? {
                wire::aside::Keeps::Nothing(_) => Keeps::Nothing,
                wire::aside::Keeps::Copy(_) => Keeps::Copy,
                wire::aside::Keeps::Outside(outside) => Keeps::Outside {
                    ranges: set(outside.ranges)?,
                    merged: outside.merged.ok_or_else(|| missing("aside.merged"))?.into(),
                },
            },
        })
    }
}

impl From<&Publish> for wire::Publish {
    fn from(publish: &Publish) -> Self {
        let table = |table: &PublishTable| wire::PublishTable {
            table_id: table.table.to_string(),
            snapshot_id: table.snapshot.to_string(),
            relation: Some(table.relation.clone().into()),
            aside: Some((&table.aside).into()),
            ranges: ranges(&table.ranges),
        };
        Self {
            gateway: publish.gateway.clone(),
            tables: publish.tables.iter().map(table).collect(),
            discard: publish.discard,
            round: publish.round,
            supersedes: publish.supersedes.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<wire::Publish> for Publish {
    type Error = Malformed;
    fn try_from(publish: wire::Publish) -> Result<Self, Malformed> {
        let table = |table: wire::PublishTable| {
            Ok(PublishTable {
                table: parse("publish.table_id", &table.table_id)?,
                snapshot: parse("publish.snapshot_id", &table.snapshot_id)?,
                relation: table.relation.ok_or_else(|| missing("publish.relation"))?.into(),
                aside: table.aside.ok_or_else(|| missing("publish.aside"))?.try_into()?,
                ranges: set(table.ranges)?,
            })
        };
        let supersedes = publish.supersedes.iter().map(|text| parse("publish.supersedes", text));
        Ok(Self {
            gateway: publish.gateway,
            tables: publish.tables.into_iter().map(table).collect::<Result<_, Malformed>>()?,
            discard: publish.discard,
            round: publish.round,
            supersedes: supersedes.collect::<Result<_, Malformed>>()?,
        })
    }
}
