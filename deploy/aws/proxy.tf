# The proxies: tasks on Fargate, spread over the zones.

locals {
  # Where every task finds its files. A first container writes them, for Fargate mounts none: from the task definition, so that a change of the ranges
  # is a new revision, rolled out, watched and rolled back like any other.
  folder = "/run/egress"

  # ---- Squid: deploy/squid as it is, with this deployment's lists and times --------------------------------------------
  squid_lines   = [for l in split("\n", file("${path.module}/../squid/squid.conf")) : l if trimspace(l) != "" && !startswith(trimspace(l), "#")]
  squid_plain   = replace(replace(join("\n", local.squid_lines), "/etc/squid", local.folder), "shutdown_lifetime 20 seconds", "shutdown_lifetime ${local.drain} seconds")
  squid_conf    = var.client_address == "preserve" ? replace(local.squid_plain, "http_port 3128 require-proxy-header", "http_port 3128") : local.squid_plain
  squid_deny_to = [for l in split("\n", file("${path.module}/../squid/deny_to.txt")) : trimspace(split("#", l)[0]) if trimspace(split("#", l)[0]) != ""]

  # The balancer's own addresses: nobody is to come round in a circle.
  balancer_addresses = [for zone in keys(local.place) : "${aws_eip.nlb[zone].public_ip}/32"]
  balancer_subnets   = [for zone in local.zones : local.public_cidr[zone]]

  squid_files = {
    "squid.conf"         = local.squid_conf
    "allow_from.txt"     = join("\n", local.allowed)
    "load_balancers.txt" = join("\n", local.balancer_subnets)
    "deny_to.txt"        = join("\n", concat(local.squid_deny_to, local.balancer_addresses))
  }

  # ---- mustnot's own ---------------------------------------------------------------------------------------------------
  mustnot_files = {
    "probes.toml" = templatefile("${path.module}/config/proxy.toml.tftpl", {
      allowed       = local.allowed
      proxy_headers = var.client_address == "proxy-protocol" ? local.balancer_subnets : []
      deny_to       = local.balancer_addresses
      budget        = format("%gGB/h", var.hourly_bytes / 1000000000)
      drain         = local.drain
      drain_lead    = local.drain_lead
      port          = local.port
      health_port   = local.health_port
    })
  }

  proxy_files = var.proxy == "squid" ? local.squid_files : local.mustnot_files

  log_options = { for name, group in aws_cloudwatch_log_group.this : name => {
    "awslogs-group"         = group.name
    "awslogs-region"        = var.region
    "awslogs-stream-prefix" = name
    # A full pipe must not stall a tunnel: what CloudWatch does not take is dropped.
    "mode"            = "non-blocking"
    "max-buffer-size" = "25m"
  } }

  health_check = { command = ["CMD", "mustnot", "--config", "${local.folder}/probes.toml", "healthcheck"], interval = 30, timeout = 10, retries = 3, startPeriod = 60 }

  no_rights = { capabilities = { drop = ["ALL"] }, initProcessEnabled = false }

  proxy_container = {
    name                   = "proxy"
    image                  = var.proxy == "squid" ? var.squid_image : var.mustnot_image
    essential              = true
    entryPoint             = var.proxy == "squid" ? ["/usr/sbin/squid"] : ["mustnot"]
    command                = var.proxy == "squid" ? ["-N", "-f", "${local.folder}/squid.conf"] : ["--config", "${local.folder}/probes.toml", "--log-format", "json", "run"]
    user                   = var.proxy == "squid" ? "proxy" : "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters        = local.no_rights
    stopTimeout            = var.stop_timeout
    # Two a tunnel. Fargate's most is 65535, and its soft limit has been 1024.
    ulimits          = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
    portMappings     = [for p in var.proxy == "mustnot" ? [local.port, local.health_port] : [local.port] : { containerPort = p, protocol = "tcp" }]
    mountPoints      = [{ sourceVolume = "config", containerPath = local.folder, readOnly = true }]
    dependsOn        = [{ containerName = "config", condition = "SUCCESS" }]
    logConfiguration = { logDriver = "awslogs", options = local.log_options["proxy"] }
    dockerLabels     = var.datadog != null && var.proxy == "mustnot" ? local.datadog_labels : {}
    healthCheck      = var.proxy == "mustnot" ? local.health_check : null
  }
}

# Writes the files that its environment holds, and ends. It is root, since a volume of Fargate belongs to root; it has no capability, no network use,
# and its own root is read-only.
locals {
  writer = { for task, files in { proxy = local.proxy_files, inside = local.inside_files, outside = local.outside_files, beacon = local.beacon_files } : task => {
    name                   = "config"
    image                  = var.helper_image
    essential              = false
    user                   = "0"
    readonlyRootFilesystem = true
    linuxParameters        = local.no_rights
    entryPoint             = ["sh", "-euc"]
    command                = [join("\n", concat(["umask 022"], [for name in sort(keys(files)) : "printf '%s\\n' \"$${${upper(replace(name, "/[^a-z]/", "_"))}}\" > ${local.folder}/${name}"], task == "proxy" ? [] : ["printf '%s\\n' \"$${BEACON_KEY}\" > ${local.folder}/beacon.key"]))]
    environment            = [for name in sort(keys(files)) : { name = upper(replace(name, "/[^a-z]/", "_")), value = files[name] }]
    secrets                = task == "proxy" ? [] : [{ name = "BEACON_KEY", valueFrom = aws_secretsmanager_secret.beacon_key.arn }]
    mountPoints            = [{ sourceVolume = "config", containerPath = local.folder, readOnly = false }]
    logConfiguration       = { logDriver = "awslogs", options = local.log_options[task] }
  } }
}

resource "aws_ecs_cluster" "this" {
  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = toset(["proxy", "inside", "outside", "beacon", "flow"])

  name              = "/${var.name}/${each.value}"
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.this.arn
}

resource "aws_ecs_task_definition" "proxy" {
  family                   = "${var.name}-proxy"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.task_cpu
  memory                   = var.task_memory
  execution_role_arn       = aws_iam_role.execution["proxy"].arn
  # No task role: a proxy has no use for AWS, and what is not there cannot be stolen through it from 169.254.170.2.

  container_definitions = jsonencode(concat([local.writer["proxy"], local.proxy_container], [for task, container in local.datadog_sidecar : container if task == "proxy"]))

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "config"
  }

  lifecycle {
    precondition {
      # The files of deploy/squid are taken by their words; if those change, this must be told.
      condition     = var.proxy != "squid" || strcontains(local.squid_conf, "shutdown_lifetime ${local.drain} seconds") && strcontains(local.squid_conf, "require-proxy-header") == (var.client_address == "proxy-protocol")
      error_message = "deploy/squid/squid.conf has changed its line of http_port or of shutdown_lifetime; change what proxy.tf replaces there, too."
    }
  }
}

resource "aws_security_group" "tasks" {
  name        = "${var.name}-tasks"
  description = "The proxies: the load balancer alone may come in, and they go out to 443."
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  security_group_id            = aws_security_group.tasks.id
  description                  = "The load balancer, for itself and its clients"
  referenced_security_group_id = aws_security_group.nlb.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = var.proxy == "mustnot" ? local.health_port : local.port
}

# Images, logs and secrets come by 443 as well. Names come from the VPC's resolver, which no group holds back.
resource "aws_vpc_security_group_egress_rule" "tasks" {
  security_group_id = aws_security_group.tasks.id
  description       = "TLS to the internet, by the fixed addresses"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_ecs_service" "proxy" {
  #checkov:skip=CKV_AWS_332:1.4.0 is the latest of Linux, written as a number.
  name            = "proxy"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.proxy.arn
  launch_type     = "FARGATE"
  # The newest of Linux, by number: what runs is what was reviewed.
  platform_version = "1.4.0"
  desired_count    = local.tasks

  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  propagate_tags                     = "SERVICE"
  enable_execute_command             = false

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = [for zone in local.zones : aws_subnet.private[zone].id]
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = false
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.proxy.arn
    container_name   = "proxy"
    container_port   = local.port
  }

  # The tasks' own addresses, for the monitor that tries to get round the load balancer.
  service_registries {
    registry_arn = aws_service_discovery_service.this["proxy"].arn
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_lb_listener.proxy, aws_iam_role_policy.execution]
}

# ---- more of them under load -----------------------------------------------------------------------------------------

resource "aws_appautoscaling_target" "proxy" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.proxy.name}"
  min_capacity       = local.tasks
  max_capacity       = var.max_tasks
}

resource "aws_appautoscaling_policy" "proxy" {
  for_each = { cpu = "ECSServiceAverageCPUUtilization", memory = "ECSServiceAverageMemoryUtilization" }

  name               = "${var.name}-${each.key}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.proxy.service_namespace
  scalable_dimension = aws_appautoscaling_target.proxy.scalable_dimension
  resource_id        = aws_appautoscaling_target.proxy.resource_id

  target_tracking_scaling_policy_configuration {
    target_value = 70
    # Out at once, in slowly: each task that leaves ends the tunnels it still has.
    scale_out_cooldown = 60
    scale_in_cooldown  = 900

    predefined_metric_specification {
      predefined_metric_type = each.value
    }
  }
}

# ---- what the agent of ECS may do to start a task; the containers have none of it ------------------------------------

locals {
  task_secrets = {
    proxy   = var.datadog == null ? [] : [var.datadog.api_key_secret_arn]
    monitor = concat([aws_secretsmanager_secret.beacon_key.arn], var.datadog == null ? [] : [var.datadog.api_key_secret_arn])
  }
  task_logs = { proxy = ["proxy"], monitor = ["inside", "outside", "beacon"] }
}

resource "aws_iam_role" "execution" {
  for_each = local.task_secrets

  name = "${var.name}-${each.key}-start"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "execution" {
  for_each = local.task_secrets

  #checkov:skip=CKV_AWS_355,CKV_AWS_290:ecr:GetAuthorizationToken knows no resource.
  name = "start"
  role = aws_iam_role.execution[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = "*"
      },
      {
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = "arn:${data.aws_partition.this.partition}:ecr:*:*:repository/*"
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = [for group in local.task_logs[each.key] : "${aws_cloudwatch_log_group.this[group].arn}:*"]
      }],
      length(each.value) == 0 ? [] : [{
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = each.value
      }],
      each.key != "monitor" ? [] : [{
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [aws_kms_key.this.arn]
    }])
  })
}
