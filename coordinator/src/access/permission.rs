//! The table of who may call what.

use super::identity::{Identity, Role};

/// One thing that can be asked of a coordinator: a method of its services, or an action of one
/// whose actions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    /// `Service.Method`, and the action after a space.
    pub(crate) call: &'static str,
    /// Who may: anybody with one of these roles. Nobody else.
    pub(crate) roles: &'static [Role],
}

use Role::{Admin, Applier, Approver, Planner, Viewer, Worker};

const PEOPLE: &[Role] = &[Viewer, Planner, Approver, Applier, Admin];
const EVERYBODY: &[Role] = &[Viewer, Planner, Approver, Applier, Worker, Admin];

macro_rules! permissions {
    ($($name:ident: $call:literal, $roles:expr;)*) => {
        impl Permission {
            $(pub(crate) const $name: Self = Self { call: $call, roles: $roles };)*
            /// The whole table.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

permissions! {
    INFO: "Control.Info", EVERYBODY;
    PLAN: "Control.Plan", &[Planner, Admin];
    CHECK_INTERVALS: "Control.CheckIntervals", &[Planner, Applier, Admin];
    SHOW_PLAN: "Control.ShowPlan", PEOPLE;
    APPLY: "Control.Apply", &[Applier, Admin];
    APPROVE: "Control.Approve", &[Approver];
    WATCH: "Control.Watch", PEOPLE;
    CANCEL: "Control.Cancel", &[Applier, Admin];
    TEND: "Control.Tend", PEOPLE;
    TEND_INVALIDATE: "Control.Tend invalidate", &[Applier, Admin];
    TEND_ABANDON: "Control.Tend abandon", &[Applier, Admin];
    TEND_JANITOR: "Control.Tend janitor", &[Applier, Admin];
    TEND_JANITOR_NOW: "Control.Tend janitor --ignore-ttl", &[Admin];
    TEND_ROLLBACK: "Control.Tend rollback", &[Admin];
    TEND_ROLLBACK_DRY: "Control.Tend rollback --dry-run", PEOPLE;
    TEND_DESTROY: "Control.Tend destroy", &[Admin];
    LIST: "Control.List", PEOPLE;
    EXPLAIN: "Control.Explain", PEOPLE;
    REGISTER: "Work.Register", &[Worker];
    POLL: "Work.Poll", &[Worker];
    HEARTBEAT: "Work.Heartbeat", &[Worker];
    COMPLETE: "Work.Complete", &[Worker];
    FETCH_SNAPSHOT: "Work.FetchSnapshot", &[Worker];
    DRAIN: "Work.Drain", &[Worker];
}

/// The package of our services, as it begins the path of a call.
const PACKAGE: &str = "/coord.v1.";

impl Permission {
    /// What a call of a path needs; nothing for a path that isn't in the table, which nobody may call.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix(PACKAGE)?.split_once('/')?;
        let is = |permission: &&Self| permission.call.split_once('.') == Some((service, method));
        // Actions aren't methods.
        Self::ALL.iter().find(is).filter(|found| !found.call.contains(' ')).copied()
    }

    /// Whether somebody may.
    pub(crate) fn allows(self, identity: &Identity) -> bool {
        identity.has_any(self.roles)
    }

    /// The roles, for people: `planner or admin`.
    pub(crate) fn needs(self) -> String {
        let names: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        names.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::Proof;

    /// `Service.Method` of every method in the `.proto` files.
    fn methods() -> BTreeSet<String> {
        let texts = [
            include_str!("../../../proto/proto/coord/v1/control.proto"),
            include_str!("../../../proto/proto/coord/v1/work.proto"),
        ];
        let mut methods = BTreeSet::new();
        for text in texts {
            let mut service = "";
            for line in text.lines().map(str::trim) {
                if let Some(rest) = line.strip_prefix("service ") {
                    service = rest.split_whitespace().next().unwrap();
                }
                if let Some(rest) = line.strip_prefix("rpc ") {
                    methods.insert(format!("{service}.{}", rest.split('(').next().unwrap()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_of_every_service_is_in_the_table_and_nothing_else() {
        let listed: BTreeSet<String> = Permission::ALL
            .iter()
            .map(|permission| permission.call.split(' ').next().unwrap().to_owned())
            .collect();
        assert!(methods().len() >= 16, "{:?}", methods());
        assert_eq!(listed, methods());
        let calls: BTreeSet<&str> = Permission::ALL.iter().map(|permission| permission.call).collect();
        assert_eq!(calls.len(), Permission::ALL.len(), "a call is listed twice");
    }

    #[test]
    fn what_is_not_in_the_table_is_nobodys() {
        for path in [
            "/coord.v1.Control/Nonsense",
            "/coord.v1.Control/",
            "/coord.v1.Control/Tend janitor",
            "/coord.v2.Control/Info",
            "/Control/Info",
            "/coord.v1.Control.Info/",
            "",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(Permission::of_path(path), None, "{path}");
        }
        assert_eq!(Permission::of_path("/coord.v1.Control/Apply"), Some(Permission::APPLY));
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let text = include_str!("../../../docs/security.md");
        let listed: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `Control.") || line.starts_with("| `Work."))
            .collect();
        let expected: Vec<String> = Permission::ALL
            .iter()
            .map(|permission| format!("| `{}` | {} |", permission.call, permission.needs()))
            .collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_method_with_actions_lets_in_whoever_may_take_one_of_them() {
        for method in Permission::ALL.iter().filter(|method| !method.call.contains(' ')) {
            let prefix = format!("{} ", method.call);
            let actions: Vec<_> = Permission::ALL.iter().filter(|of| of.call.starts_with(&prefix)).collect();
            if actions.is_empty() {
                continue;
            }
            let union: BTreeSet<Role> = actions.iter().flat_map(|action| action.roles).copied().collect();
            assert_eq!(union, method.roles.iter().copied().collect(), "{}", method.call);
        }
    }

    #[test]
    fn nobody_without_a_role_may_do_anything_and_workers_do_workers_things_only() {
        let nobody = Identity::new("n", [], Proof::Token).unwrap();
        let worker = Identity::new("w", [Role::Worker], Proof::Token).unwrap();
        for permission in Permission::ALL {
            assert!(!permission.allows(&nobody), "{}", permission.call);
            let is_workers = permission.call.starts_with("Work.") || *permission == Permission::INFO;
            assert_eq!(permission.allows(&worker), is_workers, "{}", permission.call);
            assert!(permission.allows(&Identity::local()), "{}", permission.call);
        }
    }
}
