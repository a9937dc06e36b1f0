//! What every model file is read with.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};
use crate::sql::Dialect;

use super::SourceFile;
use super::ddl::source::Source;
use super::ddl::token::tokenize;
use super::ddl::value::Value;
use super::fields::Fields;
use super::model::{Audit, Call, Code, Language};
use super::settings::Settings;
use super::settings::yaml::to_sql;
use super::signal_file::Signals;

/// What every model file is read with.
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) files: BTreeMap<&'a str, &'a SourceFile>,
    pub(crate) audits: &'a BTreeMap<String, Audit>,
    pub(crate) signals: &'a Signals,
    pub(crate) default_audits: Vec<Call>,
    pub(crate) pre_statements: Vec<Code>,
    pub(crate) post_statements: Vec<Code>,
    pub(crate) on_virtual_update: Vec<Code>,
    default_gateway: GatewayInfo,
    gateways: BTreeMap<String, GatewayInfo>,
}

/// What a model must know of its gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct GatewayInfo {
    /// The name, where the model doesn't run on the default gateway by being silent.
    pub(crate) explicit: Option<String>,
    pub(crate) name: String,
    pub(crate) default_catalog: Option<String>,
    /// The variables that macros in properties see, as SQL text.
    pub(crate) variables: BTreeMap<String, String>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        files: &[&'a SourceFile],
        audits: &'a BTreeMap<String, Audit>,
        signals: &'a Signals,
        findings: &mut Vec<Diagnostic>,
    ) -> Self {
        let info = |name: &str, explicit: bool| GatewayInfo {
            explicit: explicit.then(|| name.to_owned()),
            name: name.to_owned(),
            default_catalog: settings.default_catalog(Some(name)),
            variables: settings
                .variables_of(Some(name))
                .into_iter()
                .map(|(name, value)| (name, to_sql(&value)))
                .collect(),
        };
        let defaults = &settings.model_defaults;
        let gateways: BTreeMap<String, GatewayInfo> = settings
            .gateways
            .iter()
            .map(|gateway| (gateway.name.clone(), info(&gateway.name, true)))
            .collect();
        let default_gateway = match &defaults.gateway {
            Some(name) if gateways.contains_key(name) => info(name, true),
            _ => info(&settings.default_gateway, false),
        };
        let codes = |texts: &[String]| texts.iter().map(|text| code(text)).collect();
        Self {
            settings,
            files: files.iter().map(|file| (&*file.path, *file)).collect(),
            audits,
            signals,
            default_audits: calls(&defaults.audits, defaults.dialect, findings),
            pre_statements: codes(&defaults.pre_statements),
            post_statements: codes(&defaults.post_statements),
            on_virtual_update: codes(&defaults.on_virtual_update),
            default_gateway,
            gateways,
        }
    }

    /// The gateway that a model names, or the default one; `None` if there is none of that name.
    pub(crate) fn gateway(&self, name: Option<&str>) -> Option<&GatewayInfo> {
        match name {
            None => Some(&self.default_gateway),
            Some(name) => self.gateways.get(&name.to_lowercase()),
        }
    }

    pub(crate) fn gateway_names(&self) -> Vec<&str> {
        self.gateways.keys().map(String::as_str).collect()
    }
}

fn code(text: &str) -> Code {
    let text = text.trim().trim_end_matches(';').trim_end().to_owned();
    Code { text, language: Language::Sql, line: 1 }
}

/// Default audits, which the config gives as texts.
fn calls(texts: &[String], dialect: Dialect, findings: &mut Vec<Diagnostic>) -> Vec<Call> {
    let mut all = Vec::new();
    for text in texts {
        let source = Source::new("config.yaml".into(), text.as_str().into());
        let tokens = tokenize(text, dialect).unwrap_or_default().tokens;
        let mut own = Vec::new();
        let mut fields = Fields { dialect, findings: &mut own };
        all.extend(fields.calls(&Value { source: &source, tokens: &tokens, fallback: 0 }));
        let at = Location::file("config.yaml");
        findings.extend(own.into_iter().map(|finding| Diagnostic { at: at.clone(), ..finding }));
    }
    all
}
