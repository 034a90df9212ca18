//! The look-up table by itself: how long the published form of many Apis takes to load, and what it costs in memory.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use paifang_compiler::{CertificateFacts, Memory, Object, Objects, Settings, compile};
use paifang_model::ObjectName;
use paifang_snapshot::{table::Table, wire};
use serde_json::Value;

use crate::{folder::Fleet, measure::as_f64};

/// What many Apis cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableCost {
    pub(crate) apis: usize,
    /// Reading the published form and building the table, seconds.
    pub(crate) load_seconds: f64,
    /// From objects to the published form, seconds.
    pub(crate) compile_seconds: f64,
    /// Bytes of the published form of one Api, uncompressed.
    pub(crate) published_bytes: f64,
    /// Resident bytes of one Api in the table, everything else dropped.
    pub(crate) table_bytes: f64,
}

/// Compiles and loads this many signed Apis with three parameters each.
pub(crate) fn measure(apis: usize) -> Result<TableCost> {
    let fleet = Fleet::signed(apis);
    let objects = objects(&fleet)?;
    let mut settings = Settings::new(|_| Ok(CertificateFacts::default()));
    settings.addresses.loopback = true;
    let began = Instant::now();
    let compiled = compile(&objects, &Memory::default(), &settings);
    let compile_seconds = began.elapsed().as_secs_f64();
    let published = compiled
        .snapshot
        .groups
        .iter()
        .map(|(name, group)| Ok((name.clone(), serde_json::to_vec(&**group)?)))
        .collect::<Result<Vec<_>>>()?;
    drop((objects, compiled));
    let published_bytes =
        as_f64(published.iter().map(|(_, bytes)| bytes.len()).sum()) / as_f64(apis);

    let began = Instant::now();
    let table = load(&published)?;
    let load_seconds = began.elapsed().as_secs_f64();
    let routes: usize = table.groups().map(|group| group.routes().count()).sum();
    ensure!(routes == apis, "{routes} routes of {apis} Apis were loaded");

    // A second table, built while the heap is warm: what is resident afterwards is its own.
    let before = resident()?;
    let second = load(&published)?;
    let table_bytes = (resident()? - before) / as_f64(apis);
    drop((table, second));
    Ok(TableCost {
        apis,
        load_seconds,
        compile_seconds,
        published_bytes,
        table_bytes,
    })
}

fn load(published: &[(ObjectName, Vec<u8>)]) -> Result<Table> {
    let mut snapshot = wire::Snapshot::default();
    for (name, bytes) in published {
        let group: wire::Group = serde_json::from_slice(bytes)?;
        snapshot.groups.insert(name.clone(), Arc::new(group));
    }
    let (table, problems) = Table::load(&snapshot, &Table::empty());
    ensure!(problems.is_empty(), "not loadable: {:?}", problems.first());
    Ok(table)
}

fn objects(fleet: &Fleet) -> Result<Objects> {
    let mut objects = Objects::default();
    for number in 0..fleet.groups() {
        for object in fleet.group(number, 9) {
            let text = |pointer: &str| {
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let name = ObjectName::new("default", text("/metadata/name"));
            let spec = object["spec"].clone();
            match text("/kind") {
                "ApiGroup" => put(&mut objects.groups, name, spec)?,
                "Api" => put(&mut objects.apis, name, spec)?,
                "Authorization" => put(&mut objects.authorizations, name, spec)?,
                _ => {}
            }
        }
    }
    Ok(objects)
}

fn put<S: serde::de::DeserializeOwned>(
    into: &mut BTreeMap<ObjectName, Object<S>>,
    name: ObjectName,
    spec: Value,
) -> Result<()> {
    into.insert(name, Object::new(serde_json::from_value(spec)?));
    Ok(())
}

/// Proportional share of memory, bytes.
fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .context("no Pss in smaps_rollup")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no number")?
        .parse::<f64>()?
        * 1024.0)
}
