"""The demonstration: two networks on digits, attacked, and a report of them."""
