"""An hourly workflow of one job, with options of its own."""

import bigflow


class Sweep(bigflow.Job):
    id = "sweep"
    retry_count = 1
    retry_pause_sec = 30
    execution_timeout_sec = 600

    def execute(self, context):
        print(f"sweeping what is older than {context.runtime:%H:00}")


cleanup_workflow = bigflow.Workflow(
    workflow_id="cleanup",
    definition=[Sweep()],
    schedule_interval="@hourly",
    start_time_factory=bigflow.workflow.hourly_start_time,
    depends_on_past=False,
)
