//! The look-up table by itself: how long the published form of many Apis takes to load, and what it costs in memory.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use paifang_compiler::{CertificateFacts, Memory, Object, Objects, Settings, compile};
use paifang_model::ObjectName;
use paifang_snapshot::{table::Table, wire};
use serde_json::Value;

use crate::{folder::Fleet, measure::as_f64, process::run};

/// The argument that makes this program a child that only loads.
pub(crate) const LOAD_ONLY: &str = "load-only";

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
pub(crate) fn measure(apis: usize, home: &Path) -> Result<TableCost> {
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

    // A process of its own: this one's heap is full of what compile left behind.
    let file = home.join("published.jsonl");
    let lines = published
        .iter()
        .map(|(name, bytes)| Ok(format!("{name}\t{}\n", std::str::from_utf8(bytes)?)))
        .collect::<Result<String>>()?;
    std::fs::write(&file, lines)?;
    let output = run(Command::new(std::env::current_exe()?)
        .arg(LOAD_ONLY)
        .arg(&file)
        .arg(apis.to_string()))?;
    let mut numbers = output
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    Ok(TableCost {
        apis,
        load_seconds: numbers.next().context("no time")?,
        table_bytes: numbers.next().context("no size")?,
        compile_seconds,
        published_bytes,
    })
}

/// The child's part: loads the published form three times and prints seconds (the best of three) and resident bytes of one Api.
///
/// Every load leaves as much free memory as its input took, and the next one's input takes just that; so what grows from the second
/// to the third is the third table.
pub(crate) fn load_only(file: &Path, apis: usize) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let published = text
        .lines()
        .map(|line| {
            let (name, json) = line.split_once('\t').context("no tab")?;
            let name = name
                .parse()
                .map_err(|error: String| anyhow::anyhow!(error))?;
            Ok((name, json.as_bytes().to_vec()))
        })
        .collect::<Result<Vec<_>>>()?;
    let (mut tables, mut sizes, mut seconds) = (Vec::new(), Vec::new(), f64::MAX);
    for _ in 0..3 {
        let began = Instant::now();
        tables.push(load(&published)?);
        seconds = seconds.min(began.elapsed().as_secs_f64());
        sizes.push(resident()?);
    }
    let routes: usize = tables[0].groups().map(|group| group.routes().count()).sum();
    ensure!(routes == apis, "{routes} routes of {apis} Apis were loaded");
    Ok(format!(
        "{seconds} {}",
        (sizes[2] - sizes[1]) / as_f64(apis)
    ))
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
