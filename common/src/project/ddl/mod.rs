//! Reading the text of model and audit files: tokens, statements, `MODEL (…)` and `AUDIT (…)`
//! blocks and their properties. Everything keeps byte offsets, so findings have places.

pub(crate) mod block;
pub(crate) mod expand;
pub(crate) mod source;
pub(crate) mod statements;
pub(crate) mod token;
pub(crate) mod value;
