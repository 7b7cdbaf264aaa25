//! What every BPF program has to be, whatever kernel is asked to load it: read off the objects, since one
//! kernel's verifier says nothing of the next one's. Needs no privilege.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

use std::path::Path;

use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{Btf, TypeId};

const PROGRAMS: [&str; 6] = ["steer", "egress", "sockets", "mirror", "handback", "live"];

/// Arguments that a call takes in registers (`MAX_BPF_FUNC_REG_ARGS` of the kernel).
const ARGUMENTS_MAX: usize = 5;

/// A function that is not inlined may be declared with more arguments, as long as the compiler leaves out those
/// that are the same in each call. On Linux 6.18 that loads; 7.2 counts the declared ones and looks for the
/// sixth on the stack ("outgoing stack argument 1 is not initialized").
#[test]
fn no_function_is_declared_with_more_arguments_than_there_are_registers() {
    let mut functions = 0;
    for program in PROGRAMS {
        let object = Path::new(env!("OUT_DIR")).join(format!("{program}.bpf.o"));
        let btf = Btf::from_path(&object).unwrap();
        for id in (1..btf.len()).map(|id| TypeId::from(u32::try_from(id).unwrap())) {
            let Some(function) = btf.type_by_id::<Func<'_>>(id) else {
                continue;
            };
            let name = function.name().unwrap().to_string_lossy();
            let shape: FuncProto<'_> = function.next_type().unwrap().try_into().unwrap();
            let arguments = shape.iter().count();
            assert!(
                arguments <= ARGUMENTS_MAX,
                "{program}: {name} has {arguments} arguments"
            );
            functions += 1;
        }
    }
    assert!(functions > PROGRAMS.len(), "not even one a program");
}
