"""The front end of Envoy: it speaks HTTP in a process of its own, and hands calls on to here."""
