"""Plan a launch and explain the plan."""
