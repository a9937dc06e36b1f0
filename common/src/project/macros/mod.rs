//! The `@` macro language: expanding macro spans in a text and leaving every other byte alone.
//!
//! [`lex`] knows strings, quotes and comments; [`expand`] walks a text; [`call`] runs functions;
//! [`clause`] holds those that keep or drop a clause, [`builtins`] and [`generators`] those that
//! write SQL; [`condition`] computes what is known while rendering.

mod builtins;
mod call;
mod clause;
pub(crate) mod condition;
mod expand;
mod generators;
pub(crate) mod lex;
mod lookup;

pub(crate) use call::is_builtin;
pub(crate) use expand::Expander;
