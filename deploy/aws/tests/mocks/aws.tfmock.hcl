# What AWS would answer, in addresses for documentation.
mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}
mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
mock_resource "aws_vpc" {
  defaults = { ipv6_cidr_block = "2001:db8:200::/56" }
}
mock_resource "aws_lb" {
  defaults = { dns_name = "egress-proxy-0123456789abcdef.elb.ap-northeast-1.amazonaws.com", arn = "arn:aws:elasticloadbalancing:ap-northeast-1:123456789012:loadbalancer/net/egress-proxy/0123456789abcdef" }
}
mock_resource "aws_lb_target_group" {
  defaults = { arn = "arn:aws:elasticloadbalancing:ap-northeast-1:123456789012:targetgroup/egress-proxy/0123456789abcdef" }
}
mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/egress-proxy-start" }
}
mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:ap-northeast-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
}
mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:ap-northeast-1:123456789012:egress-proxy-alarms" }
}
mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:ap-northeast-1:123456789012:log-group:/egress-proxy/proxy" }
}
mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:egress-proxy/beacon-key-AbCdEf" }
}
mock_resource "aws_ecs_task_definition" {
  defaults = { arn = "arn:aws:ecs:ap-northeast-1:123456789012:task-definition/egress-proxy:1" }
}
mock_resource "aws_ecs_cluster" {
  defaults = { arn = "arn:aws:ecs:ap-northeast-1:123456789012:cluster/egress-proxy" }
}
mock_resource "aws_service_discovery_service" {
  defaults = { arn = "arn:aws:servicediscovery:ap-northeast-1:123456789012:service/srv-0123456789abcdef" }
}
override_resource {
  target = aws_eip.nat["ap-northeast-1a"]
  values = { public_ip = "203.0.113.1" }
}
override_resource {
  target = aws_eip.nat["ap-northeast-1c"]
  values = { public_ip = "203.0.113.2" }
}
override_resource {
  target = aws_eip.nat["ap-northeast-1d"]
  values = { public_ip = "203.0.113.3" }
}
override_resource {
  target = aws_eip.nlb["ap-northeast-1a"]
  values = { public_ip = "203.0.113.11" }
}
override_resource {
  target = aws_eip.nlb["ap-northeast-1c"]
  values = { public_ip = "203.0.113.12" }
}
override_resource {
  target = aws_eip.nlb["ap-northeast-1d"]
  values = { public_ip = "203.0.113.13" }
}
override_resource {
  target = aws_eip.beacon[0]
  values = { public_ip = "203.0.113.21" }
}
