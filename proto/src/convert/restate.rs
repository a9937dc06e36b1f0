//! What is computed aside, and its publication.

use coord_common::interval::{Interval, IntervalSet};
use coord_common::task::{Aside, Keeps, Publish, PublishTable};

use super::{Malformed, missing, parse};
use crate::wire;

impl From<&Aside> for wire::Aside {
    fn from(aside: &Aside) -> Self {
        Self {
            published: Some(aside.published.clone().into()),
            keeps: Some(match &aside.keeps {
                Keeps::Nothing => wire::aside::Keeps::Nothing(wire::Nothing {}),
                Keeps::Copy => wire::aside::Keeps::Copy(wire::Copy {}),
                Keeps::Outside { ranges, merged } => wire::aside::Keeps::Outside(wire::Outside {
                    ranges: outward(ranges),
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
                    ranges: inward(outside.ranges)?,
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
            ranges: outward(&table.ranges),
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
                ranges: inward(table.ranges)?,
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

fn outward(ranges: &IntervalSet) -> Vec<wire::Interval> {
    ranges.ranges().iter().copied().map(Into::into).collect()
}

fn inward(ranges: Vec<wire::Interval>) -> Result<IntervalSet, Malformed> {
    ranges.into_iter().map(Interval::try_from).collect()
}

#[cfg(test)]
mod tests {
    use coord_common::id::{Hash128, SnapshotId};
    use coord_common::interval::Timestamp;
    use coord_common::task::Relation;

    use super::*;

    #[test]
    fn a_publication_comes_through_unchanged() {
        let ranges: IntervalSet = [Interval { start: Timestamp(0), end: Timestamp(5) }].into_iter().collect();
        let keeps = [
            Keeps::Nothing,
            Keeps::Copy,
            Keeps::Outside { ranges: ranges.clone(), merged: Relation::new("s", "merged") },
        ];
        let table = |keeps: Keeps| PublishTable {
            table: "db.m@000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            snapshot: SnapshotId(Hash128(1)),
            relation: Relation::new("s", "aside"),
            aside: Aside { published: Relation::new("s", "t"), keeps },
            ranges: ranges.clone(),
        };
        let publish = Publish {
            gateway: "local".to_owned(),
            tables: keeps.map(table).into(),
            discard: true,
            round: 2,
            supersedes: vec!["db.m@000102030405060708090a0b0c0d0e0f:-5-10".parse().unwrap()],
        };
        assert_eq!(Publish::try_from(wire::Publish::from(&publish)).unwrap(), publish);
    }
}
