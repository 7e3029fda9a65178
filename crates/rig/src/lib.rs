//! Real Redis and Sentinel processes for tests: started on free ports of loopback, hurt on purpose, ended without a trace.
