# One page for the one who was woken.

locals {
  alarm_arns = concat(
    [aws_cloudwatch_metric_alarm.healthy.arn, aws_cloudwatch_metric_alarm.leaving.arn],
    [for alarm in aws_cloudwatch_metric_alarm.violated : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.unproven : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.ports : alarm.arn],
  )
  balancer_dimensions = ["LoadBalancer", aws_lb.proxy.arn_suffix]

  panels = [
    { title = "Verdicts", stat = "Maximum", period = 60, metrics = [for name in keys(local.verdicts) : [var.name, name]] },
    { title = "Healthy proxies", stat = "Minimum", period = 60, metrics = [
      concat(["AWS/NetworkELB", "HealthyHostCount", "TargetGroup", aws_lb_target_group.proxy.arn_suffix], local.balancer_dimensions),
      concat(["AWS/NetworkELB", "UnHealthyHostCount", "TargetGroup", aws_lb_target_group.proxy.arn_suffix], local.balancer_dimensions),
    ] },
    { title = "Tunnels at the load balancer", stat = "Sum", period = 60, metrics = [for m in ["ActiveFlowCount_TCP", "NewFlowCount_TCP", "TCP_Target_Reset_Count", "TCP_ELB_Reset_Count", "SecurityGroupBlockedFlowCount_Inbound_TCP"] : concat(["AWS/NetworkELB", m], local.balancer_dimensions)] },
    { title = "Bytes by the NAT gateways", stat = "Sum", period = 3600, metrics = [for pair in setproduct(values(local.nat_metrics), local.zones) : ["AWS/NATGateway", pair[0], "NatGatewayId", aws_nat_gateway.this[pair[1]].id]] },
    { title = "CPU and memory of the proxies, %", stat = "Average", period = 60, metrics = [for m in ["CPUUtilization", "MemoryUtilization"] : ["AWS/ECS", m, "ClusterName", aws_ecs_cluster.this.name, "ServiceName", aws_ecs_service.proxy.name]] },
    { title = "Connections by the NAT gateways", stat = "Maximum", period = 60, metrics = [for zone in local.zones : ["AWS/NATGateway", "ActiveConnectionCount", "NatGatewayId", aws_nat_gateway.this[zone].id]] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{ type = "alarm", x = 0, y = 0, width = 24, height = 3, properties = { title = "Alarms", alarms = local.alarm_arns } }],
      [for i, panel in local.panels : {
        type       = "metric"
        x          = 8 * (i % 3)
        y          = 3 + 6 * floor(i / 3)
        width      = 8
        height     = 6
        properties = merge(panel, { region = var.region, view = "timeSeries" })
      }],
      [for i, vantage in sort(tolist(local.vantages)) : {
        type   = "log"
        x      = 12 * i
        y      = 15
        width  = 12
        height = 6
        properties = {
          title  = "What the monitor ${vantage} said last"
          region = var.region
          view   = "table"
          query  = "SOURCE '/${var.name}/${vantage}' | fields @timestamp, @message | filter @message like /violated|unproven/ | sort @timestamp desc | limit 50"
        }
      }],
    )
  })
}
