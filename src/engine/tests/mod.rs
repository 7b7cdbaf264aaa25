//! What the engine makes of what it is fed, event by event and in floods.

mod already_closed;
mod attested;
mod captures;
mod counted;
mod ended;
mod episodes;
mod given_up;
mod half_closed;
mod kernel_events;
mod late;
mod later;
mod mute;
mod older_kernels;
mod opened_by_proxy;
mod overtaken;
mod routed;
mod storms;
mod transparent;
mod unproven;
mod waves;
mod whose;
