//! All objects known, and which target groups a change touches.
//!
//! Objects are kept by namespace scope (a namespace that is watched, or all of them) and kind; nodes and namespaces are
//! shared by all scopes. An object that is told again without a change touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::TargetGroup;
use super::KubernetesSdConfig;
use super::config::{AttachMetadata, Role};
use super::endpoints::{Surroundings, endpoint_slice, endpoints};
use super::metrics::KubernetesMetrics;
use super::objects::{Key, Node, Object, ObjectMeta, Pod, Resource, Service};
use super::targets::{self, PodContext, source};
use super::watch::{Change, Message, OBJECTS_MAX};

/// The scope of what all namespaces share.
pub(super) const CLUSTER: usize = usize::MAX;

type Objects = BTreeMap<Key, Object>;

/// What is known of one scope.
#[derive(Debug, Default)]
struct Scope {
    objects: BTreeMap<Resource, Objects>,
    /// Which of the role's objects speak of a pod, and of a node.
    by_pod: BTreeMap<Key, BTreeSet<Key>>,
    by_node: BTreeMap<String, BTreeSet<Key>>,
    /// Which lists have come.
    synced: BTreeSet<Resource>,
    is_ready: bool,
    /// Objects of the role whose targets are to be made anew.
    dirty: BTreeSet<Key>,
}

/// See the module document.
#[derive(Debug)]
pub(super) struct Store {
    role: Role,
    attach: AttachMetadata,
    namespaced: Vec<Resource>,
    clusterwide: Vec<Resource>,
    scopes: Vec<Scope>,
    cluster: Scope,
}

impl Store {
    pub(super) fn new(config: &KubernetesSdConfig, scopes: usize, clusterwide: Vec<Resource>) -> Self {
        // Nodes are in no namespace: their targets are the cluster's.
        let scopes = if config.role == Role::Node { 0 } else { scopes };
        Self {
            role: config.role,
            attach: config.attach,
            namespaced: config.namespaced(),
            clusterwide,
            scopes: (0..scopes).map(|_| Scope::default()).collect(),
            cluster: Scope::default(),
        }
    }

    /// Takes in a change.
    pub(super) fn apply(&mut self, message: Message, metrics: &KubernetesMetrics) {
        let Message { scope, resource, change } = message;
        let count = |event: &str, number: usize| {
            metrics.events.with_label_values(&[resource.role(), event]).inc_by(number as u64);
        };
        match change {
            Change::Replaced(objects) => {
                let now: BTreeSet<Key> = objects.iter().map(|object| object.meta().key()).collect();
                let known = self.scope(scope).objects.entry(resource).or_default();
                let gone: Vec<Key> = known.keys().filter(|key| !now.contains(*key)).cloned().collect();
                count("delete", gone.len());
                for key in gone {
                    self.remove(scope, resource, &key);
                }
                for object in objects {
                    let is_new = self.put(scope, resource, object);
                    count(if is_new { "add" } else { "update" }, 1);
                }
                self.scope(scope).synced.insert(resource);
                self.look_if_ready();
            }
            Change::Put(object) => {
                let is_new = self.put(scope, resource, object);
                count(if is_new { "add" } else { "update" }, 1);
            }
            Change::Deleted(object) => {
                count("delete", 1);
                self.remove(scope, resource, &object.meta().key());
            }
        }
    }

    /// The groups whose objects were touched since the last call; those of objects that have gone are empty.
    pub(super) fn touched(&mut self) -> Vec<TargetGroup> {
        let mut groups = Vec::new();
        if self.cluster.is_ready {
            let dirty = std::mem::take(&mut self.cluster.dirty);
            groups.extend(dirty.iter().filter_map(|key| self.group(&self.cluster, key)));
        }
        for index in 0..self.scopes.len() {
            if self.scopes[index].is_ready {
                let dirty = std::mem::take(&mut self.scopes[index].dirty);
                groups.extend(dirty.iter().filter_map(|key| self.group(&self.scopes[index], key)));
            }
        }
        groups
    }

    /// Whether all lists of all scopes have come: what is not there by now does not exist.
    pub(super) fn is_complete(&self) -> bool {
        self.cluster.is_ready && self.scopes.iter().all(|scope| scope.is_ready)
    }

    fn scope(&mut self, index: usize) -> &mut Scope {
        match index {
            CLUSTER => &mut self.cluster,
            index => &mut self.scopes[index],
        }
    }

    /// Scopes whose lists have all come are shown from now on.
    fn look_if_ready(&mut self) {
        if self.clusterwide.iter().any(|resource| !self.cluster.synced.contains(resource)) {
            return;
        }
        self.cluster.is_ready = true;
        for scope in &mut self.scopes {
            scope.is_ready = self.namespaced.iter().all(|resource| scope.synced.contains(resource));
        }
    }

    /// Whether the object is new.
    fn put(&mut self, scope: usize, resource: Resource, object: Object) -> bool {
        let key = object.meta().key();
        let is_primary = resource == self.role.resource();
        let here = self.scope(scope);
        let known = here.objects.entry(resource).or_default();
        let before = known.get(&key);
        if before == Some(&object) {
            return false;
        }
        let is_new = before.is_none();
        if is_new && known.len() >= OBJECTS_MAX {
            tracing::error!(
                resource = resource.plural(),
                limit = OBJECTS_MAX,
                "too many objects, leaving one out"
            );
            return false;
        }
        if is_primary {
            here.forget_references(resource, &key);
            here.remember_references(&object, &key);
        }
        here.objects.entry(resource).or_default().insert(key.clone(), object);
        self.touch(scope, resource, &key);
        is_new
    }

    fn remove(&mut self, scope: usize, resource: Resource, key: &Key) {
        let is_primary = resource == self.role.resource();
        let here = self.scope(scope);
        if is_primary {
            here.forget_references(resource, key);
        }
        let removed = here.objects.get_mut(&resource).and_then(|objects| objects.remove(key));
        if removed.is_some() {
            self.touch(scope, resource, key);
        }
    }

    /// Notes which of the role's objects a change touches.
    fn touch(&mut self, scope: usize, resource: Resource, key: &Key) {
        let primary = self.role.resource();
        if resource == primary {
            self.scope(scope).dirty.insert(key.clone());
            return;
        }
        match resource {
            Resource::Node => self.scopes.iter_mut().for_each(|scope| {
                let objects = scope.by_node.get(&key.1).cloned().unwrap_or_default();
                scope.dirty.extend(objects);
            }),
            Resource::Namespace => self.scopes.iter_mut().for_each(|scope| {
                let inside = scope.all(primary).filter(|(known, _)| known.0 == key.1);
                let inside: Vec<Key> = inside.map(|(known, _)| known.clone()).collect();
                scope.dirty.extend(inside);
            }),
            Resource::Pod => {
                let scope = self.scope(scope);
                let objects = scope.by_pod.get(key).cloned().unwrap_or_default();
                scope.dirty.extend(objects);
            }
            Resource::Service if primary == Resource::Endpoints => {
                let scope = self.scope(scope);
                if scope.object(primary, key).is_some() {
                    scope.dirty.insert(key.clone());
                }
            }
            Resource::Service => {
                let scope = self.scope(scope);
                let of_service = scope.all(primary).filter(|(known, object)| {
                    known.0 == key.0
                        && matches!(object, Object::EndpointSlice(slice) if slice.service() == Some(&key.1))
                });
                let slices: Vec<Key> = of_service.map(|(known, _)| known.clone()).collect();
                scope.dirty.extend(slices);
            }
            Resource::ReplicaSet | Resource::Job => {
                let kind = if resource == Resource::Job { "Job" } else { "ReplicaSet" };
                let scope = self.scope(scope);
                let owned = scope.all(primary).filter(|(known, object)| {
                    let owner = object.meta().controller();
                    known.0 == key.0 && owner.is_some_and(|owner| owner.kind == kind && owner.name == key.1)
                });
                let pods: Vec<Key> = owned.map(|(known, _)| known.clone()).collect();
                scope.dirty.extend(pods);
            }
            Resource::Endpoints | Resource::EndpointSlice | Resource::Ingress => {}
        }
    }

    /// The targets of one of the role's objects. `None`: what was known of it stays.
    fn group(&self, scope: &Scope, key: &Key) -> Option<TargetGroup> {
        let Some(object) = scope.object(self.role.resource(), key) else {
            let source = source(self.role.resource().role(), key);
            return Some(TargetGroup { source, ..TargetGroup::default() });
        };
        let around = Around { cluster: &self.cluster, scope };
        Some(match object {
            Object::Node(node) => {
                let group = targets::node(node);
                if group.is_none() {
                    tracing::warn!(node = key.1, "no node address found");
                }
                group?
            }
            Object::Service(service) => targets::service(service, around.namespace(&key.0)),
            Object::Pod(pod) => targets::pod(pod, self.around_pod(&around, pod)),
            Object::Endpoints(object) => endpoints(object, &around),
            Object::EndpointSlice(object) => endpoint_slice(object, &around),
            Object::Ingress(ingress) => targets::ingress(ingress, around.namespace(&key.0)),
            Object::Other(_) => return None,
        })
    }

    fn around_pod<'a>(&self, around: &Around<'a>, pod: &'a Pod) -> PodContext<'a> {
        let owner = pod.metadata.controller();
        let named = |kind: &str| owner.filter(|owner| owner.kind == kind).map(|owner| owner.name.as_str());
        let job = named("Job");
        let owner_of = |resource: Resource, name: &str, kind: &str| {
            let key = (pod.metadata.namespace.clone(), name.to_owned());
            let owner = around.scope.object(resource, &key)?.meta().controller()?;
            (owner.kind == kind).then_some(owner.name.as_str())
        };
        PodContext {
            node: around.node(&pod.spec.node_name),
            namespace: around.namespace(&pod.metadata.namespace),
            deployment: named("ReplicaSet")
                .filter(|_| self.attach.deployment)
                .and_then(|name| owner_of(Resource::ReplicaSet, name, "Deployment")),
            job: job.filter(|_| self.attach.job),
            cron_job: job
                .filter(|_| self.attach.cronjob)
                .and_then(|name| owner_of(Resource::Job, name, "CronJob")),
        }
    }
}

impl Scope {
    fn object(&self, resource: Resource, key: &Key) -> Option<&Object> {
        self.objects.get(&resource)?.get(key)
    }

    fn all(&self, resource: Resource) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.get(&resource).into_iter().flatten()
    }

    fn remember_references(&mut self, object: &Object, key: &Key) {
        for pod in object.pods() {
            self.by_pod.entry(pod).or_default().insert(key.clone());
        }
        for node in object.nodes() {
            self.by_node.entry(node).or_default().insert(key.clone());
        }
    }

    fn forget_references(&mut self, resource: Resource, key: &Key) {
        let Some(object) = self.objects.get(&resource).and_then(|objects| objects.get(key)) else { return };
        for pod in object.pods() {
            if let Some(users) = self.by_pod.get_mut(&pod) {
                users.remove(key);
                if users.is_empty() {
                    self.by_pod.remove(&pod);
                }
            }
        }
        for node in object.nodes() {
            if let Some(users) = self.by_node.get_mut(&node) {
                users.remove(key);
                if users.is_empty() {
                    self.by_node.remove(&node);
                }
            }
        }
    }
}

/// What an object of a scope can refer to.
struct Around<'a> {
    cluster: &'a Scope,
    scope: &'a Scope,
}

impl<'a> Around<'a> {
    fn node(&self, name: &str) -> Option<&'a Node> {
        match self.cluster.object(Resource::Node, &(String::new(), name.to_owned()))? {
            Object::Node(node) => Some(node),
            _ => None,
        }
    }

    fn namespace(&self, name: &str) -> Option<&'a ObjectMeta> {
        self.cluster.object(Resource::Namespace, &(String::new(), name.to_owned())).map(Object::meta)
    }
}

impl Surroundings for Around<'_> {
    fn pod(&self, key: &Key) -> Option<&Pod> {
        match self.scope.object(Resource::Pod, key)? {
            Object::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    fn service(&self, key: &Key) -> Option<&Service> {
        match self.scope.object(Resource::Service, key)? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.node(name)
    }

    fn namespace(&self, name: &str) -> Option<&ObjectMeta> {
        self.namespace(name)
    }
}
