//! Paifang on a real control plane: etcd, kube-apiserver and kube-controller-manager, with controllers and gateways as processes of this
//! machine beside them. What needs pods, Services and Helm is in `tests/node`.

#![allow(clippy::unwrap_used, reason = "this is a test, its helpers too")]

mod access;
mod batch;
mod changes;
mod faults;
mod objects;
mod published;
mod scale;
mod site;
mod truth;
