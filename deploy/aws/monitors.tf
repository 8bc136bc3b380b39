# The monitor's two vantages and its beacon. What they look at is made from this very state, so that an address, a zone or a range that is new is
# looked at from its first day, and one that is gone no longer.

locals {
  in_vpc     = var.outside == "vpc"
  tasks_name = "proxy.${local.namespace}"
  namespace  = "${var.name}.internal"

  beacon     = local.in_vpc ? [for port in [443, local.port] : "http://${aws_eip.beacon[0].public_ip}:${port}/"] : var.beacon_urls
  inside_url = local.in_vpc ? "http://inside.${local.namespace}:9890/" : var.inside_url

  nlb_addresses = { for zone in local.zones : zone => aws_eip.nlb[zone].public_ip }
  # Compressed as AWS writes it. The address was chosen in balancer.tf.
  nlb_addresses_v6 = { for zone in var.ipv6 ? local.zones : [] : zone => cidrhost(aws_subnet.public[zone].ipv6_cidr_block, 16) }

  inside_probes = "${trimspace(templatefile("${path.module}/config/inside.toml.tftpl", {
    internet    = var.internet_witness
    balancer    = local.nlb_addresses
    first       = local.zones[0]
    egress      = [for zone in local.zones : aws_eip.nat[zone].public_ip]
    beacon      = local.beacon
    proxy_name  = local.proxy_name
    tasks_name  = local.tasks_name
    port        = local.port
    admin_pages = var.admin_pages
    published   = var.published_ranges
    ranges      = local.by_width
    ipv6        = var.ipv6
    refused = concat(
      ["https://169.254.170.2/", "https://169.254.169.254/", "https://[fd00:ec2::254]/", "https://127.0.0.1/", "https://${cidrhost(var.vpc_cidr, 2)}/"],
      [for zone in local.zones : "https://${cidrhost(local.private_cidr[zone], 4)}/"],
      [for address in values(local.nlb_addresses) : "https://${address}/"],
    )
    refused_ports = [for port in [22, 25, 80, local.port] : "http://${split(":", var.internet_witness)[0]}:${port}/"]
  }))}\n"

  outside_probes = "${trimspace(templatefile("${path.module}/config/outside.toml.tftpl", {
    internet      = var.internet_witness
    beacon_listen = [for url in var.beacon_urls : "0.0.0.0:${regex(":([0-9]+)/$", url)[0]}"]
    families      = var.ipv6 ? ["ipv4", "ipv6"] : ["ipv4"]
    balancer      = local.nlb_addresses
    balancer_v6   = local.nlb_addresses_v6
    public        = concat([for zone in keys(local.place) : aws_eip.nlb[zone].public_ip], [for zone in keys(local.place) : aws_eip.nat[zone].public_ip], values(local.nlb_addresses_v6))
    beacon        = local.beacon
    port_witness  = local.in_vpc ? aws_eip.beacon[0].public_ip : null
    inside_url    = local.inside_url
    proxy_name    = local.proxy_name
    port          = local.port
    admin_pages   = var.admin_pages
    allowed       = concat(local.ranges_v4, [for zone in keys(local.place) : "${aws_eip.nat[zone].public_ip}/32"])
    allowed_v6    = local.ranges_v6
  }))}\n"

  inside_files  = { "probes.toml" = local.inside_probes }
  outside_files = { "probes.toml" = local.outside_probes }
  beacon_files  = { "probes.toml" = templatefile("${path.module}/config/beacon.toml.tftpl", { port = local.port }) }

  monitor_container = { for task in ["inside", "outside", "beacon"] : task => {
    name                   = "mustnot"
    image                  = var.mustnot_image
    essential              = true
    entryPoint             = ["mustnot"]
    command                = ["--config", "${local.folder}/probes.toml", "--log-format", "json", task == "beacon" ? "beacon" : "run"]
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters        = local.no_rights
    stopTimeout            = 60
    ulimits                = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
    portMappings           = [for p in task == "beacon" ? [8443, local.port] : task == "inside" ? [9890] : [] : { containerPort = p, protocol = "tcp" }]
    mountPoints            = [{ sourceVolume = "config", containerPath = local.folder, readOnly = true }]
    dependsOn              = [{ containerName = "config", condition = "SUCCESS" }]
    logConfiguration       = { logDriver = "awslogs", options = local.log_options[task] }
    dockerLabels           = var.datadog != null && task != "beacon" ? local.datadog_labels : {}
    # One that hangs is started anew; the beacon's health is its load balancer's matter.
    healthCheck = task == "beacon" ? null : local.health_check
  } }

  # Verdicts as numbers, for CloudWatch, without a right to AWS: lines in the log, and filters on them.
  tally = { for task in ["inside", "outside"] : task => {
    name                   = "tally"
    image                  = var.helper_image
    essential              = false
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters        = local.no_rights
    entryPoint             = ["sh", "-c"]
    command                = [file("${path.module}/config/tally.sh")]
    dependsOn              = [{ containerName = "mustnot", condition = "START" }]
    logConfiguration       = { logDriver = "awslogs", options = local.log_options[task] }
  } }

  # Every container but Datadog's, for the tests.
  containers = concat(values(local.writer), [local.proxy_container], values(local.monitor_container), values(local.tally))

  monitors = local.in_vpc ? ["inside", "outside", "beacon"] : ["inside"]
}

resource "aws_ecs_task_definition" "monitor" {
  for_each = toset(local.monitors)

  family                   = "${var.name}-${each.value}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.execution["monitor"].arn

  container_definitions = jsonencode(concat(
    [local.writer[each.value], local.monitor_container[each.value]],
    [for name, container in local.tally : container if name == each.value],
    [for task, container in local.datadog_sidecar : container if task == each.value],
  ))

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "config"
  }
}

# ---- inside ----------------------------------------------------------------------------------------------------------

resource "aws_security_group" "inside" {
  name        = "${var.name}-inside"
  description = "The monitor inside: it may go anywhere, so that what blocks it is never its own group."
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_egress_rule" "inside" {
  #checkov:skip=CKV_AWS_382:A monitor that its own group holds back would find everything closed.
  security_group_id = aws_security_group.inside.id
  description       = "Everything: nothing that is blocked may be blocked here"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_ingress_rule" "inside" {
  count = local.in_vpc ? 1 : 0

  security_group_id = aws_security_group.inside.id
  description       = "The outside monitor asks what this one sees"
  cidr_ipv4         = var.outside_cidr
  ip_protocol       = "tcp"
  from_port         = 9890
  to_port           = 9890
}

resource "aws_ecs_service" "inside" {
  #checkov:skip=CKV_AWS_332:1.4.0 is the latest of Linux, written as a number.
  name             = "inside"
  cluster          = aws_ecs_cluster.this.id
  task_definition  = aws_ecs_task_definition.monitor["inside"].arn
  launch_type      = "FARGATE"
  platform_version = "1.4.0"
  desired_count    = 1
  propagate_tags   = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = [for zone in local.zones : aws_subnet.monitor[zone].id]
    security_groups  = [aws_security_group.inside.id]
    assign_public_ip = false
  }

  service_registries {
    registry_arn = aws_service_discovery_service.this["inside"].arn
  }

  depends_on = [aws_route.monitor, aws_iam_role_policy.execution]
}

resource "aws_service_discovery_private_dns_namespace" "this" {
  name        = local.namespace
  description = "The tasks' own addresses"
  vpc         = aws_vpc.this.id
}

resource "aws_service_discovery_service" "this" {
  for_each = toset(["proxy", "inside"])

  name = each.value

  dns_config {
    namespace_id   = aws_service_discovery_private_dns_namespace.this.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  health_check_custom_config {
    failure_threshold = 1
  }
}
