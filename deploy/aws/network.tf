# The network: in each zone a /28 for the load balancer, a /28 for the NAT gateway, a /24 for the tasks and a /28 for the inside monitor.

locals {
  # Every zone keeps its place and its addresses; `economy` only leaves the others empty.
  all_zones = var.zones
  zones     = var.economy ? slice(local.all_zones, 0, 1) : local.all_zones
  place     = { for i, zone in local.all_zones : zone => i }

  public_cidr = { for zone, i in local.place : zone => cidrsubnet(var.vpc_cidr, 7, i) }
  # Not among the load balancer's: replies to a NAT gateway come from anywhere to any port above 1023, 3128 among them, so an ACL for both could
  # neither be narrow nor keep strangers off 3128 without breaking one tunnel in some sixty thousand.
  nat_cidr     = { for zone, i in local.place : zone => cidrsubnet(var.vpc_cidr, 7, i + 3) }
  private_cidr = { for zone, i in local.place : zone => cidrsubnet(var.vpc_cidr, 3, i + 1) }
  monitor_cidr = { for zone, i in local.place : zone => cidrsubnet(var.vpc_cidr, 7, i + 64) }

  # AWS gives these, and never none where they are asked for; what stands second is for a test's provider that knows no such thing.
  ipv6         = try(coalesce(aws_vpc.this.ipv6_cidr_block, "2001:db8:200::/56"), null)
  ipv6_outside = try(coalesce(aws_vpc.outside[0].ipv6_cidr_block, "2001:db8:300::/56"), null)

  port = 3128
}

resource "aws_vpc" "this" {
  cidr_block                       = var.vpc_cidr
  assign_generated_ipv6_cidr_block = var.ipv6
  enable_dns_support               = true
  enable_dns_hostnames             = true

  tags = { Name = var.name }
}

# What is in no other group gets nowhere.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = each.value
  cidr_block        = local.public_cidr[each.value]
  ipv6_cidr_block   = var.ipv6 ? cidrsubnet(local.ipv6, 8, local.place[each.value]) : null

  tags = { Name = "${var.name}-public-${each.value}" }
}

resource "aws_subnet" "nat" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = each.value
  cidr_block        = local.nat_cidr[each.value]

  tags = { Name = "${var.name}-nat-${each.value}" }
}

resource "aws_subnet" "private" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = each.value
  cidr_block        = local.private_cidr[each.value]

  tags = { Name = "${var.name}-private-${each.value}" }
}

resource "aws_subnet" "monitor" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = each.value
  cidr_block        = local.monitor_cidr[each.value]

  tags = { Name = "${var.name}-monitor-${each.value}" }
}

# ---- the fixed addresses ---------------------------------------------------------------------------------------------

# What destinations have on their allow lists. Once released an address is somebody else's, with all that lets it in; so no plan may destroy one.
resource "aws_eip" "nat" {
  for_each = local.place

  #checkov:skip=CKV2_AWS_19:They belong to the NAT gateways; with economy some are kept for the way back.
  domain = "vpc"
  tags   = { Name = "${var.name}-nat-${each.key}" }

  lifecycle {
    prevent_destroy = true
  }
}

# Where clients call. Fixed, too, so that the monitor outside knows every one of them, and a firewall on the way there can.
resource "aws_eip" "nlb" {
  for_each = local.place

  #checkov:skip=CKV2_AWS_19:They belong to the load balancer's subnet_mapping; with economy some are kept for the way back.
  domain = "vpc"
  tags   = { Name = "${var.name}-nlb-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.zones)

  allocation_id = aws_eip.nat[each.value].allocation_id
  subnet_id     = aws_subnet.nat[each.value].id
  tags          = { Name = "${var.name}-${each.value}" }

  depends_on = [aws_internet_gateway.this]
}

# ---- routes ----------------------------------------------------------------------------------------------------------

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route" "public_v6" {
  count = var.ipv6 ? 1 : 0

  route_table_id              = aws_route_table.public.id
  destination_ipv6_cidr_block = "::/0"
  gateway_id                  = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.public[each.value].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "nat" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.nat[each.value].id
  route_table_id = aws_route_table.public.id
}

# A zone leaves by its own NAT gateway: when another zone fails, this one does not notice.
resource "aws_route_table" "private" {
  for_each = toset(local.zones)

  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-private-${each.value}" }
}

resource "aws_route" "private" {
  for_each = toset(local.zones)

  route_table_id         = aws_route_table.private[each.value].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.value].id
}

resource "aws_route_table_association" "private" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.private[each.value].id
  route_table_id = aws_route_table.private[each.value].id
}

# Its own tables, since it alone has a way to the outside monitor.
resource "aws_route_table" "monitor" {
  for_each = toset(local.zones)

  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-monitor-${each.value}" }
}

resource "aws_route" "monitor" {
  for_each = toset(local.zones)

  route_table_id         = aws_route_table.monitor[each.value].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.value].id
}

resource "aws_route_table_association" "monitor" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.monitor[each.value].id
  route_table_id = aws_route_table.monitor[each.value].id
}

# ---- the outer lock: the load balancer's network ACL -----------------------------------------------------------------

# An ACL keeps no state, so what comes back has rules of its own. Nothing else may enter: no IPv6 unless asked for, no other port, nobody who is not
# listed. Where the list is longer than an ACL can be (acl_holds_the_ranges says so), the port is open here, and the security group holds the list.
locals {
  acl_v4 = local.acl_holds_ranges ? concat(local.ranges_v4, local.own_ranges) : ["0.0.0.0/0"]
  acl_v6 = !var.ipv6 ? [] : local.acl_holds_ranges ? local.ranges_v6 : ["::/0"]
}

resource "aws_network_acl" "public" {
  #checkov:skip=CKV_AWS_229,CKV_AWS_230,CKV_AWS_231,CKV_AWS_232:No rule here opens 20, 21, 22 or 3389; the only port that strangers might ever reach is 3128.
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for zone in local.zones : aws_subnet.public[zone].id]
  tags       = { Name = "${var.name}-public" }

  dynamic "ingress" {
    for_each = local.acl_v4
    content {
      rule_no    = 100 + ingress.key
      action     = "allow"
      protocol   = "tcp"
      cidr_block = ingress.value
      from_port  = local.port
      to_port    = local.port
    }
  }

  dynamic "ingress" {
    for_each = local.acl_v6
    content {
      rule_no         = 300 + ingress.key
      action          = "allow"
      protocol        = "tcp"
      ipv6_cidr_block = ingress.value
      from_port       = local.port
      to_port         = local.port
    }
  }

  # What the tasks answer, to clients and to health checks.
  ingress {
    rule_no    = 500
    action     = "allow"
    protocol   = "tcp"
    cidr_block = var.vpc_cidr
    from_port  = 1024
    to_port    = 65535
  }

  # "Fragmentation needed": without it a tunnel over a narrower path hangs at its first full packet.
  ingress {
    rule_no    = 510
    action     = "allow"
    protocol   = "icmp"
    cidr_block = "0.0.0.0/0"
    icmp_type  = 3
    icmp_code  = 4
    from_port  = 0
    to_port    = 0
  }

  dynamic "ingress" {
    for_each = var.ipv6 ? ["::/0"] : []
    content {
      rule_no         = 520
      action          = "allow"
      protocol        = "58"
      ipv6_cidr_block = ingress.value
      icmp_type       = 2
      icmp_code       = 0
      from_port       = 0
      to_port         = 0
    }
  }

  dynamic "egress" {
    for_each = local.acl_v4
    content {
      rule_no    = 100 + egress.key
      action     = "allow"
      protocol   = "tcp"
      cidr_block = egress.value
      from_port  = 1024
      to_port    = 65535
    }
  }

  dynamic "egress" {
    for_each = local.acl_v6
    content {
      rule_no         = 300 + egress.key
      action          = "allow"
      protocol        = "tcp"
      ipv6_cidr_block = egress.value
      from_port       = 1024
      to_port         = 65535
    }
  }

  # To the tasks: the proxy's port, and the port of its health.
  egress {
    rule_no    = 500
    action     = "allow"
    protocol   = "tcp"
    cidr_block = var.vpc_cidr
    from_port  = local.port
    to_port    = local.health_port
  }
}

# The NAT gateways take nothing but answers: to them a packet that no task asked for leads nowhere, and the monitor outside looks at every port.
resource "aws_network_acl" "nat" {
  #checkov:skip=CKV_AWS_229,CKV_AWS_230,CKV_AWS_231,CKV_AWS_232:What is open here is answers to a NAT gateway; it has no listener, and forwards nothing that was not asked for.
  vpc_id     = aws_vpc.this.id
  subnet_ids = [for zone in local.zones : aws_subnet.nat[zone].id]
  tags       = { Name = "${var.name}-nat" }

  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    cidr_block = "0.0.0.0/0"
    from_port  = 1024
    to_port    = 65535
  }

  # From the tasks and the monitor, to whatever port they call.
  ingress {
    rule_no    = 110
    action     = "allow"
    protocol   = "-1"
    cidr_block = var.vpc_cidr
    from_port  = 0
    to_port    = 0
  }

  ingress {
    rule_no    = 120
    action     = "allow"
    protocol   = "icmp"
    cidr_block = "0.0.0.0/0"
    icmp_type  = 3
    icmp_code  = -1
    from_port  = 0
    to_port    = 0
  }

  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "-1"
    cidr_block = "0.0.0.0/0"
    from_port  = 0
    to_port    = 0
  }
}

# ---- the inner lock: one prefix list a family, referred to by the load balancer's security group ---------------------

resource "aws_ec2_managed_prefix_list" "v4" {
  name           = "${var.name}-allowed"
  address_family = "IPv4"
  max_entries    = local.entries_v4

  dynamic "entry" {
    for_each = concat(local.ranges_v4, local.own_ranges)
    content {
      cidr = entry.value
    }
  }

  depends_on = [terraform_data.ranges]
}

resource "aws_ec2_managed_prefix_list" "v6" {
  count = length(local.ranges_v6) > 0 ? 1 : 0

  name           = "${var.name}-allowed-v6"
  address_family = "IPv6"
  max_entries    = local.entries_v6

  dynamic "entry" {
    for_each = local.ranges_v6
    content {
      cidr = entry.value
    }
  }

  depends_on = [terraform_data.ranges]
}

# ---- what was turned away --------------------------------------------------------------------------------------------

# Rejected packets alone: the second opinion on a block that the monitor saw. What was let in stands in the proxy's log, with a name.
resource "aws_flow_log" "this" {
  vpc_id          = aws_vpc.this.id
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.this["flow"].arn
  iam_role_arn    = aws_iam_role.flow.arn
}

resource "aws_iam_role" "flow" {
  name = "${var.name}-flow-log"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
        Resource = "${aws_cloudwatch_log_group.this["flow"].arn}:*"
      },
      {
        # AWS names it among what the service needs; it lists, and so knows no single group.
        Effect   = "Allow"
        Action   = ["logs:DescribeLogGroups"]
        Resource = "arn:${data.aws_partition.this.partition}:logs:${var.region}:${data.aws_caller_identity.this.account_id}:log-group:*"
      },
    ]
  })
}
