"""Constraints of a text: choices, a regular expression or a JSON schema, as an automaton over the
tokens of one vocabulary. Compiled in a process of its own, since a pattern may be an evil one."""
