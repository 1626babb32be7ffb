"""What people see: tables, JSON, pictures."""
