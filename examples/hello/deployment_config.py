from bigflow.configuration import DeploymentConfig

deployment_config = DeploymentConfig(
    name="local",
    properties={
        # A folder in the OCI image layout instead of a registry, and a folder instead of a bucket.
        "docker_repository": "oci:.local/images",
        "dags_bucket": "file://.local/composer",
    },
    is_master=False,
).add_configuration(
    name="dev",
    properties={
        "gcp_project_id": "my-project",
        "docker_repository": "europe-docker.pkg.dev/{gcp_project_id}/workflows/hello",
        "dags_bucket": "my-composer-bucket",
    },
)
