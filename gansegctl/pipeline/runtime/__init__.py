"""The machine under a stage: tasks of a batch system, memory."""
