# What wakes somebody. Everything goes to one topic; who hears of it is who subscribes.

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.this.arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Publish"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"] }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
      },
      {
        # Without a condition, as AWS shows it for EventBridge: it has not always sent what one could be held against, and a lost alarm is worse than a false one.
        Sid       = "PublishEvents"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

# ---- the proxies are there -------------------------------------------------------------------------------------------

resource "aws_cloudwatch_metric_alarm" "healthy" {
  alarm_name          = "${var.name}-healthy-hosts"
  alarm_description   = "Fewer than ${local.tasks} proxies answer the load balancer's checks. See the events of the ECS service, then the log group /${var.name}/proxy."
  namespace           = "AWS/NetworkELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.proxy.arn_suffix, TargetGroup = aws_lb_target_group.proxy.arn_suffix }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "LessThanThreshold"
  threshold           = local.tasks
  # No balancer, no number: that is worse than two.
  treat_missing_data = "breaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
}

# ---- what leaves AWS -------------------------------------------------------------------------------------------------

# All that leaves and is paid for: what clients send on to destinations, and what destinations answer, since that leaves AWS by the balancer towards the
# SASE. The NAT gateways see both; the balancer's own metric counts both its sides in one.
resource "aws_cloudwatch_metric_alarm" "leaving" {
  alarm_name          = "${var.name}-bytes-leaving"
  alarm_description   = "More than ${format("%g", var.hourly_bytes / 1000000000)} GB left AWS within an hour. Who sends or fetches so much stands in the log group /${var.name}/proxy, with the client's address and the destination."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.hourly_bytes
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "leaving"
    expression  = "SUM(METRICS())"
    label       = "Bytes that left AWS"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { for pair in setproduct(keys(local.nat_metrics), local.zones) : "${pair[0]}_${local.place[pair[1]]}" => { metric = local.nat_metrics[pair[0]], zone = pair[1] } }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = "AWS/NATGateway"
        metric_name = metric_query.value.metric
        dimensions  = { NatGatewayId = aws_nat_gateway.this[metric_query.value.zone].id }
        period      = 3600
        stat        = "Sum"
      }
    }
  }
}

locals {
  nat_metrics = { sent = "BytesOutToDestination", fetched = "BytesInFromDestination" }
}

# A NAT gateway has 55,000 connections at once to one destination; past that, tunnels fail, and nobody says why.
resource "aws_cloudwatch_metric_alarm" "ports" {
  for_each = toset(local.zones)

  alarm_name          = "${var.name}-nat-ports-${each.value}"
  alarm_description   = "The NAT gateway of ${each.value} had no port left for a connection. Too many tunnels go to one destination; see the log group /${var.name}/proxy for which."
  namespace           = "AWS/NATGateway"
  metric_name         = "ErrorPortAllocation"
  dimensions          = { NatGatewayId = aws_nat_gateway.this[each.value].id }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

# ---- the monitor's own -----------------------------------------------------------------------------------------------

locals {
  vantages = toset(local.in_vpc ? ["inside", "outside"] : ["inside"])
  verdicts = { for pair in setproduct(local.vantages, ["violated", "unproven", "holds"]) : "${pair[0]}-${pair[1]}" => { vantage = pair[0], verdict = pair[1] } }
}

resource "aws_cloudwatch_log_metric_filter" "verdict" {
  for_each = local.verdicts

  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.this[each.value.vantage].name
  pattern        = "[word=tally, violated, unproven, holds]"

  metric_transformation {
    namespace = var.name
    name      = each.key
    # A dollar sign and the field's name. Not written as a template: a dollar sign doubled before a brace is a template that Terraform leaves alone.
    value = format("$%s", each.value.verdict)
  }
}

resource "aws_cloudwatch_metric_alarm" "violated" {
  for_each = local.vantages

  alarm_name        = "${var.name}-violated-${each.value}"
  alarm_description = "Seen from ${each.value}: something is open that must be closed, the allowed way does not work, or the SASE publishes other ranges than are let in. Which, and what to do: the lines with \"violated\" in the log group /${var.name}/${each.value}."
  namespace         = var.name
  metric_name       = "${each.value}-violated"
  statistic         = "Maximum"
  period            = 60
  # One minute is enough. It counts for five: lines come late, and of two that come together CloudWatch would look at the last alone.
  evaluation_periods  = 5
  datapoints_to_alarm = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  # What was open stays so until it is seen closed; a monitor that is gone is the next alarm's matter.
  treat_missing_data = "ignore"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]

  depends_on = [aws_cloudwatch_log_metric_filter.verdict]
}

# Nobody knows: a witness is down, or the monitor itself. A quarter of an hour of it is a matter for somebody.
resource "aws_cloudwatch_metric_alarm" "unproven" {
  for_each = local.vantages

  alarm_name          = "${var.name}-unproven-${each.value}"
  alarm_description   = "For 15 minutes the monitor ${each.value} could not prove everything, or has said nothing at all. See the lines with \"unproven\" in the log group /${var.name}/${each.value}; if there are none, see whether its task runs."
  namespace           = var.name
  metric_name         = "${each.value}-unproven"
  statistic           = "Minimum"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  depends_on = [aws_cloudwatch_log_metric_filter.verdict]
}

# ---- AWS itself ------------------------------------------------------------------------------------------------------

# What the AWS Health Dashboard shows of this account in this region. Events of global services come to us-east-1 alone: a rule there is yours to make.
resource "aws_cloudwatch_event_rule" "health" {
  name        = "${var.name}-health"
  description = "AWS Health: issues and changes that concern this account"
  event_pattern = jsonencode({
    source      = ["aws.health"]
    detail-type = ["AWS Health Event"]
    detail      = { eventTypeCategory = ["issue", "scheduledChange"], service = ["EC2", "VPC", "ELASTICLOADBALANCING", "ECS", "FARGATE", "NATGATEWAY", "CLOUDWATCH", "ECR"] }
  })
}

resource "aws_cloudwatch_event_target" "health" {
  rule = aws_cloudwatch_event_rule.health.name
  arn  = aws_sns_topic.alarms.arn
}

# Tasks that end by themselves; a task that was told to is no news.
resource "aws_cloudwatch_event_rule" "stopped" {
  name        = "${var.name}-task-stopped"
  description = "A task of the proxy or the monitor ended by itself"
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail      = { clusterArn = [aws_ecs_cluster.this.arn], lastStatus = ["STOPPED"], stopCode = ["EssentialContainerExited", "TaskFailedToStart"] }
  })
}

resource "aws_cloudwatch_event_target" "stopped" {
  rule = aws_cloudwatch_event_rule.stopped.name
  arn  = aws_sns_topic.alarms.arn
}

# ---- money -----------------------------------------------------------------------------------------------------------

# Of the whole account: by a tag it would leave out what has none, such as data transfer.
resource "aws_budgets_budget" "monthly" {
  name         = var.name
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_amount = tostring(var.monthly_budget)
  limit_unit   = "USD"

  notification {
    notification_type         = "FORECASTED"
    comparison_operator       = "GREATER_THAN"
    threshold                 = 80
    threshold_type            = "PERCENTAGE"
    subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
  }

  # AWS forecasts nothing before it has seen some five weeks.
  notification {
    notification_type         = "ACTUAL"
    comparison_operator       = "GREATER_THAN"
    threshold                 = 100
    threshold_type            = "PERCENTAGE"
    subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
  }

  depends_on = [aws_sns_topic_policy.alarms]
}
