# The load balancer: TCP through and through, so that CONNECT and what follows it are nobody's business but the proxy's.

locals {
  health_port = 3129
  tasks       = coalesce(var.tasks, var.economy ? 1 : 3)
  drain       = var.stop_timeout - 10

  # Three failed checks, ten seconds apart: for so long new clients may still come to a proxy that is about to leave.
  health_interval = 10
  unhealthy_after = 3
  drain_lead      = local.health_interval * local.unhealthy_after + 5

  proxy_name = var.domain == null ? aws_lb.proxy.dns_name : var.domain.name
}

resource "aws_security_group" "nlb" {
  name        = "${var.name}-nlb"
  description = "The load balancer: the allowed ranges may come in, and it goes to the tasks."
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "nlb_v4" {
  security_group_id = aws_security_group.nlb.id
  description       = "Who may use the proxy"
  prefix_list_id    = aws_ec2_managed_prefix_list.v4.id
  ip_protocol       = "tcp"
  from_port         = local.port
  to_port           = local.port
}

resource "aws_vpc_security_group_ingress_rule" "nlb_v6" {
  count = length(aws_ec2_managed_prefix_list.v6)

  security_group_id = aws_security_group.nlb.id
  description       = "Who may use the proxy, by IPv6"
  prefix_list_id    = aws_ec2_managed_prefix_list.v6[0].id
  ip_protocol       = "tcp"
  from_port         = local.port
  to_port           = local.port
}

resource "aws_vpc_security_group_egress_rule" "nlb_tasks" {
  security_group_id            = aws_security_group.nlb.id
  description                  = "The tasks, and their health"
  referenced_security_group_id = aws_security_group.tasks.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.health_port
}

resource "aws_lb" "proxy" {
  #checkov:skip=CKV_AWS_91:A network load balancer logs TLS listeners alone; who called, and where to, stands in the proxy's log, with the client's own address.
  #checkov:skip=CKV_AWS_150:Deletion protection stands in the way of a drill that takes it down; the addresses, which cannot be had back, are protected themselves.
  name               = var.name
  load_balancer_type = "network"
  internal           = false
  ip_address_type    = var.ipv6 ? "dualstack" : "ipv4"

  # A balancer that was made without a group can never have one.
  security_groups = [aws_security_group.nlb.id]

  # Each zone's address serves all tasks, so a zone without a healthy one still answers; a cent a gigabyte is less than an outage.
  enable_cross_zone_load_balancing = true

  dynamic "subnet_mapping" {
    for_each = toset(local.zones)
    content {
      subnet_id     = aws_subnet.public[subnet_mapping.value].id
      allocation_id = aws_eip.nlb[subnet_mapping.value].allocation_id
      # Chosen here, so that the monitor outside knows it.
      ipv6_address = var.ipv6 ? cidrhost(aws_subnet.public[subnet_mapping.value].ipv6_cidr_block, 16) : null
    }
  }

  depends_on = [aws_internet_gateway.this, aws_network_acl.public, terraform_data.ranges]
}

resource "aws_lb_target_group" "proxy" {
  name        = var.name
  vpc_id      = aws_vpc.this.id
  target_type = "ip"
  protocol    = "TCP"
  port        = local.port

  # Exactly one of the two; with neither, the proxy would see the balancer and call it the client.
  proxy_protocol_v2  = var.client_address == "proxy-protocol"
  preserve_client_ip = var.client_address == "preserve"

  # Tunnels that stand may go on as long before SIGTERM as after it. They are not cut at its end: the proxy ends them, and logs each.
  deregistration_delay   = var.stop_timeout
  connection_termination = false

  # A proxy that is about to leave turns its health red first. The default would reset its tunnels for that.
  target_health_state {
    enable_unhealthy_connection_termination = false
    unhealthy_draining_interval             = var.stop_timeout
  }

  health_check {
    # mustnot says when it is about to leave, and when it has no file descriptor left; Squid can only be asked whether it listens.
    protocol            = var.proxy == "mustnot" ? "HTTP" : "TCP"
    path                = var.proxy == "mustnot" ? "/healthz" : null
    matcher             = var.proxy == "mustnot" ? "200" : null
    port                = var.proxy == "mustnot" ? local.health_port : "traffic-port"
    interval            = local.health_interval
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = local.unhealthy_after
  }
}

resource "aws_lb_listener" "proxy" {
  load_balancer_arn = aws_lb.proxy.arn
  protocol          = "TCP"
  port              = local.port
  # The proxy ends an idle tunnel after five minutes; the balancer must not forget it first, for it would not tell.
  tcp_idle_timeout_seconds = 350

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.proxy.arn
  }
}

# An alias gives the addresses of zones that are healthy, and costs nothing.
resource "aws_route53_record" "proxy" {
  for_each = var.domain == null ? toset([]) : toset(var.ipv6 ? ["A", "AAAA"] : ["A"])

  zone_id = var.domain.zone_id
  name    = var.domain.name
  type    = each.value

  alias {
    name                   = aws_lb.proxy.dns_name
    zone_id                = aws_lb.proxy.zone_id
    evaluate_target_health = true
  }
}
