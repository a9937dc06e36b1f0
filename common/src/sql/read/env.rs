//! Common table expressions in scope.

use std::cell::Cell;
use std::rc::Rc;

use sqlparser::ast;

/// A common table expression in scope.
#[derive(Clone)]
pub(super) struct Binding<'a> {
    pub(super) name: String,
    pub(super) query: &'a ast::Query,
    pub(super) renames: bool,
    /// What its own query sees.
    pub(super) env: Env<'a>,
    /// Whether its name may mean itself inside it.
    pub(super) itself: bool,
    pub(super) used: Cell<bool>,
    /// Whether it is a recursive one's name inside itself.
    pub(super) stands_for_itself: bool,
    pub(super) outer: Env<'a>,
}

pub(super) type Env<'a> = Option<Rc<Binding<'a>>>;

pub(super) fn lookup<'a>(env: &Env<'a>, name: &str) -> Env<'a> {
    let mut at = env.clone();
    while let Some(binding) = at {
        if binding.name == name {
            return Some(binding);
        }
        at = binding.outer.clone();
    }
    None
}

/// The same CTE, into which conditions don't reach.
pub(super) fn hidden<'a>(binding: &Rc<Binding<'a>>) -> Rc<Binding<'a>> {
    binding.used.set(true);
    Rc::new(Binding { renames: true, used: Cell::new(true), ..Binding::clone(binding) })
}

/// The environment of a CTE's query where its own name means the step before.
pub(super) fn inner_env<'a>(binding: &Rc<Binding<'a>>) -> Env<'a> {
    binding.used.set(true);
    if binding.itself { Some(opaque(binding)) } else { binding.env.clone() }
}

/// Stands for a CTE's own name inside it: no rows that were not read before.
pub(super) fn opaque<'a>(binding: &Rc<Binding<'a>>) -> Rc<Binding<'a>> {
    Rc::new(Binding {
        name: binding.name.clone(),
        query: binding.query,
        renames: true,
        env: None,
        itself: false,
        stands_for_itself: true,
        used: Cell::new(true),
        outer: binding.env.clone(),
    })
}
