"""Files written whole or not at all, and what tells one run from another."""
