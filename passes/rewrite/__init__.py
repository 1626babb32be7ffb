"""Rewriting: patterns, rules, and conversion to a target by a table."""
