//! Nodes that are gone for good: the agent goes on with the next replicator of the pool,
//! and what was asked for is finished without the operator.
//!
//! Not here: nodes that come back soon (`crashes`).

use crate::harness::{Lab, Node, b3sum, count, eventually};
use crate::writing::{Writer, rewrite};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

#[test]
fn a_migration_whose_source_was_revoked_is_unknown_and_not_enrolled() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 8, 1);
    let mesh = lab.mesh_of_three();
    mesh.plan(&disk);
    mesh.act("start");
    mesh.until_passes(1);
    mesh.operator.run(&["node", "revoke", "agent"]).ok();
    let view = mesh.until_stage("unknown");
    let job = &view["volumes"][0];
    assert_eq!(job["stage"], "unknown", "{view:#}");
    let why = "node agent was revoked";
    for told in [&job["detail"], &view["next"]] {
        assert!(told.as_str().unwrap().contains(why), "{view:#}");
    }
}

/// An operator, a provisioner, two replicators and an agent that waits two seconds for a
/// lost replicator; the agent's disk is being copied to the first replicator.
struct Site {
    operator: Node,
    cloud: Node,
    first: Node,
    second: Node,
    agent: Node,
    disk: PathBuf,
}

impl Site {
    fn new(lab: &Lab) -> Self {
        let mut operator = lab.node("operator");
        let init = ["mesh", "init", "--node-name", "operator"];
        operator.run(&init).ok();
        operator.start();
        let join = |name, roles| {
            let mut node = lab.joiner(&operator, name, roles);
            if name == "agent" {
                let config = lab.path("agent.toml");
                fs::write(&config, "[agent]\nmove_on_after_secs = 2\n").unwrap();
                node.extra = vec!["--config".into(), config.to_str().unwrap().into()];
            }
            node.start();
            node
        };
        let cloud = join("cloud", "provisioner");
        let first = join("first", "replicator");
        let second = join("second", "replicator");
        let agent = join("agent", "agent");
        let disk = lab.disk("disk.raw", 8, 1);
        let site = Self {
            operator,
            cloud,
            first,
            second,
            agent,
            disk,
        };
        site.plan();
        site
    }

    fn plan(&self) {
        for node in [&self.agent, &self.cloud] {
            eventually("all connected", || {
                (node.status()["connected"].as_u64()? >= 4).then_some(())
            });
        }
        let disk = self.disk.to_str().unwrap();
        self.agent.run(&["volume", "add", disk]).ok();
        let create = "migration create --server agent --to local --name m --replicator first --replicator second";
        let create: Vec<&str> = create.split(' ').collect();
        eventually("a plan", || {
            self.operator.run(&create).status.success().then_some(())
        });
        self.operator.run(&["migration", "start", "m"]).ok();
        let view = self.until("the first pass", |view| passed(view, 1));
        assert_eq!(view["volumes"][0]["replicator"], "first");
    }

    /// Waits for the migration as the provisioner sees it.
    fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let view = self.cloud.run(&["migration", "show", "m"]).ok();
            reached(&view).then_some(view)
        })
    }

    /// Waits until three nodes have signed one root under an epoch, and compares disk
    /// and copy.
    fn until_confirmed(&self, epoch: u64) -> PathBuf {
        let view = self.until("the cutover", |view| view["stage"] == "cut-over");
        let copy = PathBuf::from(view["volumes"][0]["target_path"].as_str().unwrap());
        let verify = eventually("the witness", || {
            let verify = self.cloud.run(&["verify", "m"]).ok();
            (verify["confirmed"] == true).then_some(verify)
        });
        assert_eq!(verify["verified"], true, "{verify:#}");
        let root = b3sum(&self.disk);
        assert_eq!(b3sum(&copy), root);
        for (part, by) in [
            ("source", "agent"),
            ("target", "second"),
            ("witness", "cloud"),
        ] {
            let proof = &verify["volumes"][0][part];
            assert_eq!(proof["root"], root, "{verify:#}");
            assert_eq!(proof["epoch"], epoch, "{verify:#}");
            assert_eq!(proof["signed_by"], by, "{verify:#}");
        }
        assert_eq!(view["volumes"][0]["epoch"], epoch);
        copy
    }

    /// The raw files of the cloud.
    fn raw_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cloud.folder.join("cloud")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "raw"))
            .collect()
    }
}

/// Whether a pass was completed under an epoch.
fn passed(view: &Value, epoch: u64) -> bool {
    let volume = &view["volumes"][0];
    let passes = volume["passes"].as_array();
    volume["epoch"] == epoch && passes.is_some_and(|passes| !passes.is_empty())
}

#[test]
fn a_replicator_gone_for_good_is_replaced_and_does_no_harm_when_it_comes_back() {
    let lab = Lab::new();
    let mut site = Site::new(&lab);
    let streams = count(&site.first, "stream-accepted");
    site.first.kill();
    let aside = lab.path("aside");
    fs::rename(&site.first.folder, &aside).unwrap();
    let words = ["epoch 2", "given up"];
    site.agent.until_event("replicator-replaced", &words);
    site.cloud.until_event("volume-fenced", &["epoch 1"]);
    let view = site.until("a pass at the second", |view| passed(view, 2));
    assert_eq!(view["volumes"][0]["replicator"], "second");
    site.cloud.until_event("old-volumes-removed", &["below 2"]);
    assert_eq!(site.raw_files().len(), 1);

    fs::rename(&aside, &site.first.folder).unwrap();
    site.first.start();
    site.first.until_event("copy-forgotten", &["over"]);
    site.operator.run(&["migration", "cutover", "m"]).ok();
    let copy = site.until_confirmed(2);
    assert_eq!(site.raw_files(), [copy]);
    assert_eq!(count(&site.first, "stream-accepted"), streams);
}

#[test]
fn without_operator_and_replicator_the_cutover_that_was_asked_for_is_finished() {
    let lab = Lab::new();
    let mut site = Site::new(&lab);
    // As long as somebody writes no pass is clean, and the cutover cannot end.
    let writer = Writer::start(&site.disk);
    site.operator.run(&["migration", "cutover", "m"]).ok();
    site.agent.until_event("source-not-quiet", &[]);
    for node in [&site.cloud, &site.second] {
        eventually("the cutover is known", || {
            let view = node.run(&["migration", "show", "m"]).ok();
            (view["desired"] == "cutover").then_some(())
        });
    }
    site.operator.kill();
    fs::remove_dir_all(&site.operator.folder).unwrap();
    site.first.kill();
    fs::remove_dir_all(&site.first.folder).unwrap();
    drop(writer);
    site.until_confirmed(2);
}

#[test]
fn a_copy_that_was_tampered_with_after_its_barrier_is_not_confirmed() {
    let lab = Lab::new();
    let site = Site::new(&lab);
    let copy = site.raw_files().remove(0);
    rewrite(&copy, 1, 1, 2);
    site.operator.run(&["migration", "cutover", "m"]).ok();
    site.until("the cutover", |view| view["stage"] == "cut-over");
    site.cloud
        .until_event("copy-differs", &["do not launch", "keep both"]);
    let verify = site.cloud.run(&["verify", "m"]).ok();
    assert_eq!(verify["verified"], true, "both ends believe it: {verify:#}");
    assert_eq!(verify["confirmed"], false, "{verify:#}");
    assert!(verify["volumes"][0]["witness"].is_null(), "{verify:#}");
}
