# The link to Datadog, where one is wanted: its role in this account, and its agent beside whoever has /metrics.

locals {
  # The agent reads the labels of the containers in its task (autodiscovery), and scrapes what they name.
  # They are those of dashboards/datadog, whose dashboard wants the names that come of them; in a task the agent and its neighbour share one loopback.
  datadog_label  = "com.datadoghq.ad.checks"
  datadog_checks = jsondecode(yamldecode(file("${path.module}/../../dashboards/datadog/docker-labels.yaml")).services.mustnot.labels[local.datadog_label])
  datadog_labels = { (local.datadog_label) = replace(jsonencode(local.datadog_checks), "%%host%%", "127.0.0.1") }

  # Beside each that has /metrics; its log is its task's, since whoever starts the task may write to no other.
  datadog_sidecar = { for task in var.datadog == null ? [] : ["proxy", "inside", "outside"] : task => {
    name      = "datadog"
    image     = var.datadog.agent_image
    essential = false
    # It writes its own configuration at its start, and so can neither have a read-only root nor be somebody else; it has no task role.
    readonlyRootFilesystem = false
    environment = [
      { name = "ECS_FARGATE", value = "true" },
      { name = "DD_SITE", value = var.datadog.site },
      { name = "DD_TAGS", value = "service:${var.name}" },
    ]
    secrets          = [{ name = "DD_API_KEY", valueFrom = var.datadog.api_key_secret_arn }]
    logConfiguration = { logDriver = "awslogs", options = merge(local.log_options[task], { "awslogs-stream-prefix" = "datadog" }) }
  } }
}

resource "aws_iam_role" "datadog" {
  count = var.datadog == null ? 0 : 1

  name = "${var.name}-datadog"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.this.partition}:iam::${var.datadog.account_id}:root" }
      Action    = "sts:AssumeRole"
      # Without it any other customer of Datadog could have this account read.
      Condition = { StringEquals = { "sts:ExternalId" = var.datadog.external_id } }
    }]
  })
}

# Metrics and what they are about; nothing of what is inside logs, secrets or images.
resource "aws_iam_role_policy" "datadog" {
  count = var.datadog == null ? 0 : 1

  #checkov:skip=CKV_AWS_355:These read calls know no resource.
  name = "read"
  role = aws_iam_role.datadog[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
        "budgets:ViewBudget", "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics", "ec2:DescribeAvailabilityZones", "ec2:DescribeNatGateways",
        "ec2:DescribeRegions", "ecs:DescribeClusters", "ecs:DescribeServices", "ecs:DescribeTasks", "ecs:ListClusters", "ecs:ListServices", "ecs:ListTasks",
        "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeTags", "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth",
        "health:DescribeEventDetails", "health:DescribeEvents", "tag:GetResources",
      ]
      Resource = "*"
    }]
  })
}
