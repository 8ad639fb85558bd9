//! The wanted route table, merged by source, and the plan that makes the kernel's table equal to it.
