//! How much memory the compiler takes for each Api: all it keeps, with parsed releases and the published form, but without the objects
//! themselves, which are the caller's. Bytes as asked of the allocator.

use allocation_counter::measure;

use crate::{CertificateFacts, Compiler, Memory, Object, Objects, Secret, Settings, Touched};

// What nothing but the example changes.
#[allow(dead_code)]
#[path = "../examples/change/world.rs"]
mod world;

const APIS: usize = 2_000;

/// Everything together. Beyond caches the aim is 4 KiB; of what is counted here, parsed releases and the published form, a third of it,
/// could be had again from the rest.
const MOST: i64 = 4 * 1024 + 512;

fn per_api(bytes: i64) -> i64 {
    bytes / i64::try_from(APIS).unwrap()
}

fn freed(drops: impl FnOnce()) -> i64 {
    per_api(-measure(drops).bytes_current)
}

fn settle(compiler: &mut Compiler, objects: &Objects) {
    while compiler.update(objects, &Touched::default()).unsettled {}
}

#[test]
fn an_api_takes_little_memory() {
    let mut objects = world::world(APIS);
    for (at, object) in objects.apis.values_mut().enumerate() {
        object.uid = Some(format!("00000000-0000-4000-8000-{at:012}").into());
    }
    let settings = Settings::new(|_| Ok(CertificateFacts::default()));
    let mut compiler = Compiler::new(Memory::default(), settings);
    let all = measure(|| settle(&mut compiler, &objects)).bytes_current;
    let all = per_api(all);
    let pieces = [
        ("verdicts", freed(|| compiler.forget_verdicts())),
        (
            "published",
            freed(|| drop(std::mem::take(&mut compiler.snapshot))),
        ),
        ("known", freed(|| drop(std::mem::take(&mut compiler.world)))),
        (
            "remembered",
            freed(|| drop(std::mem::take(&mut compiler.memory))),
        ),
    ];
    assert!(
        all <= MOST,
        "{all} bytes an Api; freed one after the other: {pieces:?}"
    );
    assert!(all > MOST / 4, "{all} bytes an Api is too good to be true");
}

#[test]
fn releases_share_what_the_object_says() {
    let mut objects = world::world(40);
    let settings = Settings::new(|_| Ok(CertificateFacts::default()));
    let mut compiler = Compiler::new(Memory::default(), settings.clone());
    settle(&mut compiler, &objects);
    // As after a restart: what is remembered is read from where it is stored, and comes to the same.
    let mut memory = Memory::default();
    for key in compiler.memory().changes(&Memory::default()) {
        let entry = compiler.memory().entry(&key).unwrap();
        memory.restore(key, entry).unwrap();
    }
    let mut restarted = Compiler::new(memory, settings);
    settle(&mut restarted, &objects);
    // An edit of nothing but the stages is no release.
    let name = world::name("a3");
    let mut spec = world::api(3);
    spec["stages"] = serde_json::json!({"RELEASE": {}, "PRE": {}});
    objects.apis.insert(name.clone(), world::object(spec));
    let touched = Touched::object(crate::ObjectId::new(crate::Kind::Api, &name));
    for compiler in [&mut compiler, &mut restarted] {
        compiler.update(&objects, &touched);
        settle(compiler, &objects);
        for (name, api) in &compiler.memory().apis {
            let [release] = &*api.releases else {
                panic!("{name} has {} releases", api.releases.len())
            };
            let spec = objects.apis[name].spec().unwrap();
            assert!(std::sync::Arc::ptr_eq(&release.spec, spec), "{name}");
        }
    }
    assert_eq!(compiler.memory(), restarted.memory());
}
