//! Weighted max-min fairness under several caps at once, by progressive filling (Bertsekas and Gallager, Data Networks,
//! section 6.5.2): the rates of all flows rise together, in proportion to their weights; a flow stops at its demand, or
//! when one of its caps is used up, and the others go on. Pure.

/// One that wants a share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flow {
    /// Its part beside others; greater than zero.
    pub(crate) weight: f64,
    /// The most it can use; infinite if only the caps hold it.
    pub(crate) demand: f64,
    /// The caps it is under, as places in the list of caps.
    pub(crate) caps: Vec<usize>,
}

/// The rate of each flow, in the order given; infinite for a flow that nothing holds.
#[must_use]
pub(crate) fn max_min(flows: &[Flow], caps: &[f64]) -> Vec<f64> {
    let mut rates: Vec<Option<f64>> = vec![None; flows.len()];
    // Each round settles a flow at least.
    for _ in 0..flows.len() {
        let full = levels(flows, caps, &rates);
        let reach = |flow: &Flow| {
            let level = |cap: &usize| full.get(*cap).copied().unwrap_or(f64::INFINITY);
            flow.caps.iter().map(level).fold(flow.demand.max(0.0) / flow.weight, f64::min)
        };
        let open = || flows.iter().zip(&rates).filter(|(_, rate)| rate.is_none());
        let Some(level) = open().map(|(flow, _)| reach(flow)).min_by(f64::total_cmp) else { break };
        let settled: Vec<bool> = flows.iter().map(|flow| reach(flow) <= level).collect();
        for ((flow, rate), settled) in flows.iter().zip(&mut rates).zip(settled) {
            if rate.is_none() && settled {
                *rate = Some(level * flow.weight);
            }
        }
    }
    rates.into_iter().map(|rate| rate.unwrap_or(f64::INFINITY)).collect()
}

/// For each cap, the rate per weight at which those that are not settled use it up.
fn levels(flows: &[Flow], caps: &[f64], rates: &[Option<f64>]) -> Vec<f64> {
    let mut left: Vec<(f64, f64)> = caps.iter().map(|&cap| (cap, 0.0)).collect();
    for (flow, rate) in flows.iter().zip(rates) {
        for &cap in &flow.caps {
            let Some((room, weight)) = left.get_mut(cap) else { continue };
            match rate {
                Some(rate) => *room -= rate,
                None => *weight += flow.weight,
            }
        }
    }
    let level =
        |(room, weight): (f64, f64)| if weight > 0.0 { room.max(0.0) / weight } else { f64::INFINITY };
    left.into_iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(weight: f64, demand: f64, caps: &[usize]) -> Flow {
        Flow { weight, demand, caps: caps.to_vec() }
    }

    const ALL: f64 = f64::INFINITY;

    #[test]
    fn shares_are_those_worked_out_by_hand() {
        // flows, caps -> rates
        let table: [(&[Flow], &[f64], &[f64]); 9] = [
            (&[], &[80.0], &[]),
            (&[flow(1.0, ALL, &[0])], &[80.0], &[80.0]),
            (&[flow(1.0, ALL, &[0]), flow(1.0, ALL, &[0])], &[80.0], &[40.0, 40.0]),
            (&[flow(2.0, ALL, &[0]), flow(1.0, ALL, &[0])], &[90.0], &[60.0, 30.0]),
            (&[flow(1.0, ALL, &[0]), flow(0.1, ALL, &[0])], &[110.0], &[100.0, 10.0]),
            (&[flow(1.0, 10.0, &[0]), flow(1.0, ALL, &[0])], &[80.0], &[10.0, 70.0]),
            // The user's cap holds the first two, the server's cap leaves the rest to the third.
            (
                &[flow(1.0, ALL, &[0, 1]), flow(1.0, ALL, &[0, 1]), flow(1.0, ALL, &[0])],
                &[100.0, 30.0],
                &[15.0, 15.0, 70.0],
            ),
            (&[flow(1.0, 5.0, &[]), flow(1.0, ALL, &[])], &[], &[5.0, ALL]),
            (&[flow(1.0, ALL, &[0]), flow(1.0, ALL, &[0])], &[0.0], &[0.0, 0.0]),
        ];
        for (row, (flows, caps, rates)) in table.into_iter().enumerate() {
            let got = max_min(flows, caps);
            assert_eq!(got.len(), rates.len(), "row {row}");
            for (got, rate) in got.iter().zip(rates) {
                assert!(got == rate || (got - rate).abs() < 1e-6, "row {row}: {got} for {rate}");
            }
        }
    }

    /// A sequence that looks random (Knuth's multiplier); the tests need no more.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, most: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % most
        }

        fn scene(&mut self) -> (Vec<Flow>, Vec<f64>) {
            let caps: Vec<f64> = (0..1 + self.below(5)).map(|_| self.below(1000) as f64).collect();
            let weights = [2.0, 1.0, 0.1];
            let flows = (0..self.below(12)).map(|_| Flow {
                weight: weights[self.below(3) as usize],
                demand: if self.below(3) == 0 { ALL } else { self.below(500) as f64 },
                caps: (0..caps.len()).filter(|_| self.below(2) == 0).collect(),
            });
            (flows.collect(), caps)
        }
    }

    #[test]
    fn no_cap_is_exceeded_no_demand_overfed_and_nobody_held_without_a_reason() {
        let mut dice = Dice(1);
        for scene in 0..5000 {
            let (flows, caps) = dice.scene();
            let rates = max_min(&flows, &caps);
            let used = |cap: usize| -> f64 {
                flows
                    .iter()
                    .zip(&rates)
                    .filter(|(flow, _)| flow.caps.contains(&cap))
                    .map(|(_, rate)| rate)
                    .sum()
            };
            for (n, &cap) in caps.iter().enumerate() {
                assert!(used(n) <= cap + 1e-6, "scene {scene}: {} of {cap}", used(n));
            }
            for (flow, &rate) in flows.iter().zip(&rates) {
                assert!(rate >= 0.0 && rate <= flow.demand + 1e-6, "scene {scene}: {flow:?} {rate}");
                // Held below its demand, it must be under a used-up cap on which nobody has more per weight: giving it
                // more would take from somebody who has less.
                let fair_cap = |&cap: &usize| {
                    let others = flows.iter().zip(&rates).filter(|(other, _)| other.caps.contains(&cap));
                    let most = others.map(|(other, rate)| rate / other.weight).fold(0.0, f64::max);
                    used(cap) >= caps[cap] - 1e-6 && rate / flow.weight >= most - 1e-6
                };
                let held_fairly = flow.caps.iter().any(fair_cap);
                assert!(rate >= flow.demand - 1e-6 || held_fairly, "scene {scene}: {flow:?} {rate}");
            }
        }
    }
}
