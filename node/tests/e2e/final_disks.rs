//! A disk that is cut over is final, whatever the other disks of its migration do.

use crate::harness::Lab;
use crate::writing::Writer;
use serde_json::Value;

#[test]
fn a_cutover_is_not_taken_back_once_one_of_its_disks_is_cut_over() {
    let lab = Lab::new();
    let quiet = lab.disk("quiet.raw", 8, 1);
    let busy = lab.disk("busy.raw", 8, 2);
    let mesh = lab.mesh_of_three();
    mesh.offer(&quiet, "quiet");
    mesh.offer(&busy, "busy");
    let plan = ["migration", "create", "--server", "agent", "--to", "local"];
    mesh.operator
        .run(&[&plan[..], &["--name", "m"]].concat())
        .ok();
    mesh.act("start");
    let volume = |view: &Value, name: &str| {
        let mut volumes = view["volumes"].as_array().unwrap().iter();
        volumes
            .find(|volume| volume["name"] == name)
            .unwrap()
            .clone()
    };
    mesh.until("both were copied once", |view| {
        let passed = |name| !volume(view, name)["passes"].as_array().unwrap().is_empty();
        passed("quiet") && passed("busy")
    });
    let writer = Writer::start(&busy);
    mesh.act("cutover");
    let view = mesh.until("the quiet disk is cut over", |view| {
        volume(view, "quiet")["stage"] == "cut-over"
    });
    assert_ne!(volume(&view, "busy")["stage"], "cut-over", "{view:#}");
    for verb in ["pause", "start", "resume"] {
        mesh.operator
            .run(&["migration", verb, "m"])
            .fails(6, &["disk quiet is cut over already", "final", "delete"]);
    }
    drop(writer);
    mesh.until_stage("cut-over");
}
