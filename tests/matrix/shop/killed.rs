//! A run, and a recovery, with HAProxy alone, killed at every call that has an effect, and what the next recovery makes of it.

use std::time::Instant;

use anyhow::ensure;
use nix::sys::signal::Signal;
use testbed::{Result, wait};

use super::rows::READY;
use super::{Stand, WEIGHT};
use crate::effects::{CALLS, calls, traced};
use crate::stand::{LIMIT, signal_of};
use crate::{full, say, story};

/// What is killed: a safe restart, or the recovery of one that was killed while the host was out.
const VICTIMS: [(&str, &str); 2] = [
    ("run", "--pools web --services php8.2-fpm --max-concurrency 1 --grace-period 0 --settle 0 --lb-timeout 20"),
    ("recovery", "--recover --lb-timeout 20"),
];

#[test]
fn a_run_with_haproxy_alone_that_is_killed_at_any_effect_is_brought_back() {
    let began = Instant::now();
    let mut stand = Stand::boot().unwrap();
    let (mut stories, mut killed, mut out) = (String::new(), 0, 0);
    for (victim, arguments) in VICTIMS {
        let prepare = |stand: &mut Stand| -> Result<()> {
            let before = stand.reset()?;
            if victim == "recovery" {
                let mut run = stand.start("drain", &before)?;
                run.signal(Signal::SIGKILL)?;
                run.wait(LIMIT)?;
            }
            Ok(())
        };
        prepare(&mut stand).unwrap();
        let names: Vec<_> = CALLS.iter().map(|(call, _)| *call).collect();
        let all = format!("--trace={}", names.join(","));
        let (output, said) = traced(stand.shop.host(0), arguments, &[&all]).unwrap();
        assert_eq!(output.code(), Some(0), "an undisturbed {victim}: {output}");
        let counts = calls(&said);
        for needed in ["fsync", "unlinkat", "connect", "sendto", "recvfrom"] {
            assert!(counts.contains_key(needed), "no '{needed}' in a whole {victim}: look at CALLS; {counts:?}");
        }
        for (call, stride) in CALLS {
            let stride = if full() { 1 } else { stride * if victim == "recovery" { 4 } else { 2 } };
            for number in (1..=counts.get(call).copied().unwrap_or_default()).step_by(stride) {
                let result = (|| {
                    prepare(&mut stand)?;
                    let inject = format!("--inject={call}:signal=KILL:when={number}");
                    let (output, _) = traced(stand.shop.host(0), arguments, &[&format!("--trace={call}"), &inject])?;
                    ensure!(signal_of(&output).is_some() || output.code() == Some(0), "{output}");
                    let was_out = stand.stands()? != READY;
                    let held = stand.recovered()?;
                    ensure!(!held && stand.stands()? == READY, "held: {held}, {}: {output}", stand.stands()?);
                    ensure!(stand.shop.weight(0, 0)? == WEIGHT, "the weight was not kept");
                    wait::until("PHP-FPM", LIMIT, || Ok(stand.look()?.active == "active"))?;
                    Ok::<_, anyhow::Error>((signal_of(&output).is_some(), was_out))
                })();
                match result {
                    Ok((was_killed, was_out)) => {
                        (killed, out) = (killed + usize::from(was_killed), out + usize::from(was_out));
                    }
                    Err(error) => {
                        stories += &format!("\n== a {victim} killed at call {number} of {call}:\n{}\n", story(&error));
                        stand = Stand::boot().unwrap();
                    }
                }
            }
        }
    }
    say(&format!("haproxy: killed at {killed} effects, {out} of them out: {:.0?}", began.elapsed()));
    assert!(stories.is_empty(), "{stories}");
    assert!(out > 0, "the host was never out when the run was killed: that proves nothing");
}
