"""One worker: its session, its stream, and how it claims, keeps, delivers and ends."""
