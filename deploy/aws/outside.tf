# The outside: a VPC that the proxy's knows nothing of, but for one way: the outside monitor asks the inside one what it sees.
# Not made with outside = "elsewhere".

resource "aws_vpc" "outside" {
  #checkov:skip=CKV2_AWS_11:Nobody but the monitor is here, and it tells of itself.
  count = local.in_vpc ? 1 : 0

  cidr_block                       = var.outside_cidr
  assign_generated_ipv6_cidr_block = var.ipv6
  enable_dns_support               = true
  enable_dns_hostnames             = true

  tags = { Name = "${var.name}-outside" }
}

resource "aws_default_security_group" "outside" {
  count = local.in_vpc ? 1 : 0

  vpc_id = aws_vpc.outside[0].id
}

resource "aws_internet_gateway" "outside" {
  count = local.in_vpc ? 1 : 0

  vpc_id = aws_vpc.outside[0].id
  tags   = { Name = "${var.name}-outside" }
}

resource "aws_subnet" "outside" {
  count = local.in_vpc ? 1 : 0

  vpc_id                          = aws_vpc.outside[0].id
  availability_zone               = local.all_zones[length(local.all_zones) - 1]
  cidr_block                      = var.outside_cidr
  ipv6_cidr_block                 = var.ipv6 ? cidrsubnet(local.ipv6_outside, 8, 0) : null
  assign_ipv6_address_on_creation = var.ipv6

  tags = { Name = "${var.name}-outside" }
}

resource "aws_route_table" "outside" {
  count = local.in_vpc ? 1 : 0

  vpc_id = aws_vpc.outside[0].id
  tags   = { Name = "${var.name}-outside" }
}

resource "aws_route" "outside" {
  count = local.in_vpc ? 1 : 0

  route_table_id         = aws_route_table.outside[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.outside[0].id
}

resource "aws_route" "outside_v6" {
  count = local.in_vpc && var.ipv6 ? 1 : 0

  route_table_id              = aws_route_table.outside[0].id
  destination_ipv6_cidr_block = "::/0"
  gateway_id                  = aws_internet_gateway.outside[0].id
}

resource "aws_route_table_association" "outside" {
  count = local.in_vpc ? 1 : 0

  subnet_id      = aws_subnet.outside[0].id
  route_table_id = aws_route_table.outside[0].id
}

# ---- the one way between them ----------------------------------------------------------------------------------------

# Routed to the inside monitor's subnets and to no other: from outside there is no way to a proxy's own address, whatever a security group says.
resource "aws_vpc_peering_connection" "outside" {
  count = local.in_vpc ? 1 : 0

  vpc_id      = aws_vpc.outside[0].id
  peer_vpc_id = aws_vpc.this.id
  auto_accept = true
  tags        = { Name = "${var.name}-outside" }
}

resource "aws_route" "outside_to_inside" {
  for_each = toset(local.in_vpc ? local.zones : [])

  route_table_id            = aws_route_table.outside[0].id
  destination_cidr_block    = local.monitor_cidr[each.value]
  vpc_peering_connection_id = aws_vpc_peering_connection.outside[0].id
}

resource "aws_route" "inside_to_outside" {
  for_each = toset(local.in_vpc ? local.zones : [])

  route_table_id            = aws_route_table.monitor[each.value].id
  destination_cidr_block    = var.outside_cidr
  vpc_peering_connection_id = aws_vpc_peering_connection.outside[0].id
}

resource "aws_route53_zone_association" "outside" {
  count = local.in_vpc ? 1 : 0

  zone_id = aws_service_discovery_private_dns_namespace.this.hosted_zone
  vpc_id  = aws_vpc.outside[0].id
}

# ---- the monitor -----------------------------------------------------------------------------------------------------

resource "aws_security_group" "outside" {
  count = local.in_vpc ? 1 : 0

  name        = "${var.name}-outside"
  description = "The monitor outside: it may go anywhere, and nobody comes in."
  vpc_id      = aws_vpc.outside[0].id
}

resource "aws_vpc_security_group_egress_rule" "outside" {
  for_each = toset(local.in_vpc ? concat(["0.0.0.0/0"], var.ipv6 ? ["::/0"] : []) : [])

  #checkov:skip=CKV_AWS_382:A monitor that its own group holds back would find everything closed.
  security_group_id = aws_security_group.outside[0].id
  description       = "Everything: nothing that is blocked may be blocked here"
  cidr_ipv4         = each.value == "::/0" ? null : each.value
  cidr_ipv6         = each.value == "::/0" ? each.value : null
  ip_protocol       = "-1"
}

resource "aws_ecs_service" "outside" {
  count = local.in_vpc ? 1 : 0

  #checkov:skip=CKV_AWS_332:1.4.0 is the latest of Linux, written as a number.
  #checkov:skip=CKV_AWS_333:It has a public address to leave by, which no list has, and that changes with every start: a stranger's.
  name             = "outside"
  cluster          = aws_ecs_cluster.this.id
  task_definition  = aws_ecs_task_definition.monitor["outside"].arn
  launch_type      = "FARGATE"
  platform_version = "1.4.0"
  desired_count    = 1
  propagate_tags   = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = [aws_subnet.outside[0].id]
    security_groups  = [aws_security_group.outside[0].id]
    assign_public_ip = true
  }

  depends_on = [aws_route.outside, aws_iam_role_policy.execution]
}

# ---- the beacon ------------------------------------------------------------------------------------------------------

resource "aws_eip" "beacon" {
  count = local.in_vpc ? 1 : 0

  #checkov:skip=CKV2_AWS_19:It belongs to the load balancer's subnet_mapping.
  domain = "vpc"
  tags   = { Name = "${var.name}-beacon" }
}

# A task has no fixed address of its own, so a load balancer stands before it. It keeps the caller's address, for that is what the beacon tells.
resource "aws_lb" "beacon" {
  count = local.in_vpc ? 1 : 0

  #checkov:skip=CKV_AWS_91,CKV_AWS_150,CKV_AWS_152:One zone and one task; when it is gone every check that needs it is unproven, which is an alarm.
  name               = "${var.name}-beacon"
  load_balancer_type = "network"
  internal           = false
  security_groups    = [aws_security_group.beacon[0].id]

  subnet_mapping {
    subnet_id     = aws_subnet.outside[0].id
    allocation_id = aws_eip.beacon[0].allocation_id
  }

  depends_on = [aws_internet_gateway.outside]
}

resource "aws_lb_target_group" "beacon" {
  for_each = local.in_vpc ? { "443" = 8443, "3128" = local.port } : {}

  name                 = "${var.name}-b-${each.key}"
  vpc_id               = aws_vpc.outside[0].id
  target_type          = "ip"
  protocol             = "TCP"
  port                 = each.value
  preserve_client_ip   = true
  deregistration_delay = 30

  health_check {
    protocol            = "TCP"
    port                = "traffic-port"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "beacon" {
  #checkov:skip=CKV_AWS_2:The beacon signs what it says; what it is asked through must see nothing but bytes.
  for_each = aws_lb_target_group.beacon

  load_balancer_arn = aws_lb.beacon[0].arn
  protocol          = "TCP"
  port              = tonumber(each.key)

  default_action {
    type             = "forward"
    target_group_arn = each.value.arn
  }
}

resource "aws_security_group" "beacon" {
  count = local.in_vpc ? 1 : 0

  name        = "${var.name}-beacon"
  description = "The beacon: open to all on purpose."
  vpc_id      = aws_vpc.outside[0].id
}

# Were it open to the proxies' addresses alone, a relay that leaves by any other would not reach it, and would be taken for none. It answers only to
# nonces that our key signed.
resource "aws_vpc_security_group_ingress_rule" "beacon" {
  for_each = toset(local.in_vpc ? ["443", "3128", "8443"] : [])

  security_group_id = aws_security_group.beacon[0].id
  description       = "Everybody: a relay may come from anywhere"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
}

# The balancer to the task, by the same group; and the task to images, logs and its key.
resource "aws_vpc_security_group_egress_rule" "beacon" {
  for_each = { for name, to in { task = { port = local.port, cidr = var.outside_cidr }, task_443 = { port = 8443, cidr = var.outside_cidr }, tls = { port = 443, cidr = "0.0.0.0/0" } } : name => to if local.in_vpc }

  security_group_id = aws_security_group.beacon[0].id
  description       = each.key == "tls" ? "Images, logs, the key" : "The balancer to its task"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_ecs_service" "beacon" {
  count = local.in_vpc ? 1 : 0

  #checkov:skip=CKV_AWS_332:1.4.0 is the latest of Linux, written as a number.
  #checkov:skip=CKV_AWS_333:Without a NAT gateway of its own it fetches its image by a public address; the group lets in what the balancer does, and no more.
  name             = "beacon"
  cluster          = aws_ecs_cluster.this.id
  task_definition  = aws_ecs_task_definition.monitor["beacon"].arn
  launch_type      = "FARGATE"
  platform_version = "1.4.0"
  desired_count    = 1
  propagate_tags   = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = [aws_subnet.outside[0].id]
    security_groups  = [aws_security_group.beacon[0].id]
    assign_public_ip = true
  }

  dynamic "load_balancer" {
    for_each = aws_lb_target_group.beacon
    content {
      target_group_arn = load_balancer.value.arn
      container_name   = "mustnot"
      container_port   = load_balancer.value.port
    }
  }

  depends_on = [aws_lb_listener.beacon, aws_iam_role_policy.execution]
}
