"""What `benches/run` is made of: peers, work, servers, a slow line, measurement, pages."""
