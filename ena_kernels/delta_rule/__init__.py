"""The delta rule: a linear recurrence that overwrites what a key already stores."""
