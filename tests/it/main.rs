//! What Keyward promises, tried over HTTP against an installation in this process, one for each test.

mod addresses;
mod alone;
mod audit_log;
mod authorizer;
mod bad_input;
mod check;
mod coexistence;
mod contract;
mod cost;
mod documentation;
mod documented_forms;
mod edge;
mod expressions;
mod faults;
mod forgery;
mod layer;
mod limits_model;
mod lists;
mod login;
mod main_job;
mod peppers;
mod permissions;
mod price;
mod processes;
mod races;
mod rate_limits;
mod records;
mod root_keys;
mod route_permissions;

mod sessions;
mod shapes;
mod soak;
mod tenancy;
mod values;
mod vectors;
