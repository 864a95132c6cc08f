//! Checks of keys, over HTTP and in this process, while those keys are revoked and rotated and their app is disabled: what
//! was taken away stays so for every check that starts after the response, and what was not goes on working.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyward_core::target::Target;
use keyward_verifier::{Accepted, Check, CheckError, Verifier};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{Backend, text};

/// The app whose keys are revoked and rotated.
const KEYS: &str = "soak-keys";
/// The app that is disabled.
const SWITCHED: &str = "soak-switched";
/// The number of tasks that check keys.
const CHECKERS: usize = 8;
/// The number of tasks that revoke keys.
const REVOKERS: usize = 8;
/// The number of secrets of each task that revokes them.
const SECRETS: usize = 4;
/// The time for which an app stays enabled.
const STAY: Duration = Duration::from_millis(20);

/// Whether something may be used: a count of the changes, which goes up twice for each, before the request and after its
/// response.
#[derive(Debug, Default)]
struct Switch(AtomicU32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    On,
    Off,
    /// A request that changes it was under way.
    Changing,
}

impl Switch {
    async fn turn<T>(&self, request: impl Future<Output = T>) -> T {
        self.0.fetch_add(1, Ordering::SeqCst);
        let response = request.await;
        self.0.fetch_add(1, Ordering::SeqCst);
        response
    }

    fn changes(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Its value for the whole time since `before` was read, if that did not change.
    fn since(&self, before: u32) -> State {
        match before % 4 {
            _ if before != self.changes() => State::Changing,
            0 => State::On,
            2 => State::Off,
            _ => State::Changing,
        }
    }
}

/// A secret of a key.
#[derive(Debug, Clone)]
struct Credential {
    key: String,
    secret: String,
    switch: Arc<Switch>,
    /// The status and code of checks while it is off.
    refusal: (u16, &'static str),
}

impl Credential {
    fn new(created: &Value, refusal: (u16, &'static str)) -> Self {
        Self { key: text(&created["id"]), secret: text(&created["secret"]), switch: Arc::default(), refusal }
    }
}

/// A run, and what was done in it.
pub struct Soak {
    backend: Backend,
    verifier: Verifier,
    target: Target,
    total: u64,
    /// The credentials to check: [`SECRETS`] for each task that revokes some.
    secrets: Vec<Mutex<Credential>>,
    pub verifications: AtomicU64,
    pub revocations: AtomicU64,
    pub rotations: AtomicU64,
    pub disablings: AtomicU64,
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [verifications, revocations, rotations, disablings] =
            [&self.verifications, &self.revocations, &self.rotations, &self.disablings]
                .map(|count| count.load(Ordering::SeqCst));
        write!(
            f,
            "{verifications} verifications, {revocations} revocations, {rotations} rotations, {disablings} disablings"
        )
    }
}

impl Soak {
    /// Makes the apps and keys, for a run of so many verifications, revocations, rotations and disablings together.
    pub async fn prepare(backend: Backend, verifier: Verifier, total: u64) -> Arc<Self> {
        for app in [KEYS, SWITCHED] {
            backend.create_app(app).await;
        }
        let mut secrets = vec![];
        for _ in 0..(REVOKERS + 1) * SECRETS {
            secrets.push(Credential::new(&backend.create_key(KEYS, json!({})).await, (403, "key_revoked")));
        }
        for rotated in &mut secrets[REVOKERS * SECRETS..] {
            rotated.refusal = (401, "invalid_api_key");
        }
        let app = Arc::<Switch>::default();
        for _ in 0..SECRETS {
            let created = backend.create_key(SWITCHED, json!({})).await;
            secrets
                .push(Credential { switch: app.clone(), ..Credential::new(&created, (403, "app_disabled")) });
        }
        Arc::new(Self {
            backend,
            verifier,
            target: Target::parse("GET", "/v1/users").expect("a target"),
            total,
            secrets: secrets.into_iter().map(Mutex::new).collect(),
            verifications: AtomicU64::default(),
            revocations: AtomicU64::default(),
            rotations: AtomicU64::default(),
            disablings: AtomicU64::default(),
        })
    }

    /// The number of checks and revocations.
    pub fn done(&self) -> u64 {
        let all = [&self.verifications, &self.revocations, &self.rotations, &self.disablings];
        all.into_iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Ends when all is done; panics at the first wrong response.
    pub async fn run(self: &Arc<Self>) {
        let mut tasks = JoinSet::new();
        for checker in 0..CHECKERS {
            tasks.spawn(self.clone().check_all(checker));
        }
        for revoker in 0..REVOKERS {
            tasks.spawn(self.clone().revoke(revoker * SECRETS));
        }
        tasks.spawn(self.clone().rotate(REVOKERS * SECRETS));
        tasks.spawn(self.clone().disable((REVOKERS + 1) * SECRETS));
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a task without a wrong answer");
        }
    }

    async fn check_all(self: Arc<Self>, checker: usize) {
        let mut place = checker * self.secrets.len() / CHECKERS;
        while self.done() < self.total {
            self.check(&self.get(place % self.secrets.len()), checker.is_multiple_of(2)).await;
            place += 1;
        }
    }

    /// Revokes each key in turn, right after checks that a cache would remember, and in the next turn makes another in its
    /// place.
    async fn revoke(self: Arc<Self>, first: usize) {
        while self.done() < self.total {
            for place in first..first + SECRETS {
                let credential = self.get(place);
                if credential.switch.since(credential.switch.changes()) == State::Off {
                    let created = self.backend.create_key(KEYS, json!({})).await;
                    self.set(place, Credential::new(&created, credential.refusal));
                    continue;
                }
                self.check_both(&credential).await;
                let revoke = self.backend.revoke(KEYS, &credential.key);
                credential.switch.turn(async { revoke.await.ok() }).await;
                self.revocations.fetch_add(1, Ordering::SeqCst);
                self.check_both(&credential).await;
            }
        }
    }

    /// Rotates the keys of the first half; their former secrets are the second half.
    async fn rotate(self: Arc<Self>, first: usize) {
        while self.done() < self.total {
            for place in first..first + SECRETS / 2 {
                let former = self.get(place);
                self.check_both(&former).await;
                let rotate = self.backend.rotate(KEYS, &former.key);
                let created = former.switch.turn(async { rotate.await.ok() }).await;
                self.rotations.fetch_add(1, Ordering::SeqCst);
                let current = Credential::new(&created, former.refusal);
                self.set(place, current.clone());
                self.set(place + SECRETS / 2, former.clone());
                self.check_both(&former).await;
                self.check_both(&current).await;
            }
        }
    }

    async fn disable(self: Arc<Self>, first: usize) {
        let path = format!("/api-auth/apps/{SWITCHED}");
        let credential = self.get(first);
        while self.done() < self.total {
            for active in [false, true] {
                let patch = self.backend.patch(&path, json!({"is_active": active}));
                credential.switch.turn(async { patch.await.ok() }).await;
                self.check_both(&credential).await;
                tokio::time::sleep(STAY).await;
            }
            self.disablings.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn get(&self, place: usize) -> Credential {
        self.secrets[place].lock().expect("a lock").clone()
    }

    fn set(&self, place: usize, credential: Credential) {
        *self.secrets[place].lock().expect("a lock") = credential;
    }

    async fn check_both(&self, credential: &Credential) {
        for over_http in [false, true] {
            self.check(credential, over_http).await;
        }
    }

    async fn check(&self, credential: &Credential, over_http: bool) {
        let before = credential.switch.changes();
        let response = if over_http { self.ask(credential).await } else { self.verify(credential).await };
        let state = credential.switch.since(before);
        let (allowed, refused) =
            (response == Ok(()), response.as_ref() == Err(&credential.refusal.1.to_owned()));
        let right = match state {
            State::On => allowed,
            State::Off => refused,
            State::Changing => allowed || refused,
        };
        assert!(right, "{state:?}, to be refused as {:?}, but {response:?}", credential.refusal);
        self.verifications.fetch_add(1, Ordering::SeqCst);
    }

    async fn ask(&self, credential: &Credential) -> Result<(), String> {
        let response = self.backend.check(&credential.secret).await;
        if response.body["allowed"] == true {
            return Ok(());
        }
        assert_eq!(response.status, credential.refusal.0, "{}", response.body);
        Err(text(&response.body["code"]))
    }

    async fn verify(&self, credential: &Credential) -> Result<(), String> {
        let check = Check {
            presented: &credential.secret,
            accepted: &Accepted::ANY,
            target: &self.target,
            required_permissions: &[],
            client_ip: "127.0.0.1".parse().ok(),
            user_agent: None,
            request_id: None,
        };
        match self.verifier.check(&check, None).await {
            Ok(decision) => decision.denied.map_or(Ok(()), |denial| Err(denial.code().to_string())),
            Err(CheckError::Refused { refusal, .. }) => Err(refusal.code().to_string()),
            Err(CheckError::InvalidKey) => Err("invalid_api_key".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
