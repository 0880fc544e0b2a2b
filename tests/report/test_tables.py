import pytest

from basicsr_ext.report.tables import format_scores


def test_columns_are_aligned_and_end_with_the_mean():
    text = format_scores('PSNR (dB)', ['cat', 'a long name'], {'bicubic': [30.0, 31.0], 'ECO': [9.125, 40.0]})
    assert text.splitlines() == [
        'PSNR (dB)    cat  a long name   mean',
        'bicubic    30.00        31.00  30.50',
        'ECO         9.12        40.00  24.56',
    ]


def test_decimals():
    assert format_scores('SSIM', ['cat'], {'ECO': [0.96151]}, decimals=4).endswith('0.9615  0.9615')


@pytest.mark.parametrize(('columns', 'scores'), [(['a', 'b'], [1.0]), (['a'], [1.0, 2.0]), ([], [])])
def test_a_score_for_each_column(columns, scores):
    with pytest.raises(ValueError, match='ECO: expected one score'):
        format_scores('PSNR', columns, {'ECO': scores})
