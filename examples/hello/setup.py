import bigflow.build

bigflow.build.setup(
    name="hello",
    description="The smallest project worth deploying: two workflows and a resource file.",
)
