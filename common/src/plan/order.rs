//! Topological order of snapshots.

use std::collections::BTreeMap;

use petgraph::graph::DiGraph;

use crate::id::ModelName;

/// Names in topological order, parents first; the same order for the same graph.
///
/// Edges to names that aren't keys, and to oneself, are left out.
///
/// # Errors
/// The names of the smallest group of models that read each other in a circle, sorted.
pub fn topological(
    parents: &BTreeMap<&ModelName, Vec<&ModelName>>,
) -> Result<Vec<ModelName>, Vec<ModelName>> {
    let mut graph = DiGraph::<&ModelName, ()>::with_capacity(parents.len(), parents.len() * 2);
    // Nodes and edges are added in name order: the walk, and so the result, depends on that only.
    let index: BTreeMap<&ModelName, _> = parents.keys().map(|name| (*name, graph.add_node(name))).collect();
    for (child, uppers) in parents {
        for upper in uppers {
            if let Some(from) = index.get(upper).filter(|_| upper != child) {
                graph.add_edge(*from, index[child], ());
            }
        }
    }
    match petgraph::algo::toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(|node| graph[node].clone()).collect()),
        Err(_) => Err(cycle(&graph)),
    }
}

fn cycle(graph: &DiGraph<&ModelName, ()>) -> Vec<ModelName> {
    let components = petgraph::algo::tarjan_scc(graph);
    let mut members: Vec<ModelName> = components
        .into_iter()
        .filter(|component| component.len() > 1)
        .min_by_key(Vec::len)
        .unwrap_or_default()
        .into_iter()
        .map(|node| graph[node].clone())
        .collect();
    members.sort();
    members
}
