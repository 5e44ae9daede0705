"""A daily workflow of two jobs: the second prints what the first has prepared."""

import bigflow
import bigflow.resources


class Prepare(bigflow.Job):
    id = "prepare"

    def execute(self, context):
        print(f"preparing the greeting of {context.runtime:%Y-%m-%d}")


class Greet(bigflow.Job):
    id = "greet"

    def __init__(self, name):
        super().__init__()
        self.name = name

    def execute(self, context):
        template = bigflow.resources.get_resource_absolute_path("greeting.txt")
        print(template.read_text().format(name=self.name), end="")


greeting_workflow = bigflow.Workflow(
    workflow_id="greeting",
    definition=[Prepare(), Greet("world")],
    schedule_interval="@daily",
)
