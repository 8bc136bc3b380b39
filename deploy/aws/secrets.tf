# Secrets have a place here, and never a value: what Terraform knows stands in its state for everybody to read who can read that.

# The key that beacon and monitors share. Give it its value once, before all else is applied (docs/aws.md): without it no monitor starts,
# and a service whose first tasks fail is given up by its circuit breaker:
#   openssl rand -hex 32 | aws secretsmanager put-secret-value --secret-id egress-proxy/beacon-key --secret-string file:///dev/stdin
resource "aws_secretsmanager_secret" "beacon_key" {
  #checkov:skip=CKV2_AWS_57:Both ends must change at once, which is a new value and two restarts; nothing that rotates by itself does that.
  name                    = "${var.name}/beacon-key"
  description             = "Shared by the beacon and the monitors; at least 32 bytes."
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = 7
}

# One key for the logs, the alarms' topic and the secret: the AWS-managed ones let neither alarms nor budgets publish to an encrypted topic.
resource "aws_kms_key" "this" {
  description             = "${var.name}: logs, alarms, secrets"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${data.aws_partition.this.partition}:logs:${var.region}:${data.aws_caller_identity.this.account_id}:log-group:/${var.name}/*" } }
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}
