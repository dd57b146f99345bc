//! The TCP listener for operators: who gets in, and what the others can do.

mod brokers;
mod clients;
mod contexts;
mod crowds;
mod listening;
mod people;
mod records;
mod right_broker;
